// Results of `lab bench` in a report.
#include <algorithm>

#include "lab/error.h"
#include "lab/names.h"
#include "lab/report.h"

namespace lab {
namespace {

Table ContextOf(const Json& json) {
  Table table({"", ""});
  if (!json.contains("context") || !json["context"].is_object()) return table;
  for (const char* key :
       {"cpu", "simd_target", "threads", "device", "model", "weights", "weights_on_device",
        "huge_pages", "roof_read_gb_s", "roof_device_copy_gb_s", "date", "host_name", "executable"})
    if (const auto it = json["context"].find(key); it != json["context"].end())
      table.Add({key, Printable(it->is_string() ? it->get<std::string>() : it->dump(), 200)});
  return table;
}

double Microseconds(const Json& b) {
  const std::string unit = b.at("time_unit");
  const double scale = unit == "ns" ? 1e-3 : unit == "us" ? 1 : unit == "ms" ? 1e3 : 1e6;
  return scale * b.at("real_time").get<double>();
}

// Medians, or single runs where nothing was repeated.
std::vector<const Json*> Timings(const Json& benchmarks) {
  std::vector<const Json*> medians, single;
  for (const Json& b : benchmarks) {
    if (b.value("error_occurred", false)) continue;
    if (b.value("aggregate_name", "") == "median") medians.push_back(&b);
    if (b.value("run_type", "") == "iteration") single.push_back(&b);
  }
  return medians.empty() ? single : medians;
}

}  // namespace

void AddBenchmarks(const std::string& path, const Json& json, Report& report) {
  try {
    const std::vector<const Json*> timings = Timings(json["benchmarks"]);
    const bool roof = std::any_of(timings.begin(), timings.end(),
                                  [](const Json* b) { return b->contains("%roof"); });
    Bars bars = {"Time of each row",
                 roof ? "Length: how close to the roof of this machine, min(bandwidth x intensity, "
                        "peak). Slowest first."
                      : "Length: microseconds. Slowest first.",
                 roof ? "% of the roof" : "us",
                 roof ? 100.0 : 0.0,
                 {}};
    for (const Json* b : timings) {
      const std::string name = b->value("run_name", b->at("name").get<std::string>());
      const double us = Microseconds(*b);
      const double value = roof ? b->value("%roof", 0.0) : us;
      std::string text = fmt::format("{:.4g} us", us);
      if (b->contains("GB/s")) text += fmt::format(", {:.3g} GB/s", b->at("GB/s").get<double>());
      if (roof) text += fmt::format(", {:.0f} %", value);
      bars.bars.push_back({Printable(name, 200), value, text, Tone::neutral});
      if (!roof) bars.end = std::max(bars.end, us);
    }
    std::stable_sort(bars.bars.begin(), bars.bars.end(), [&](const auto& a, const auto& b) {
      return roof ? a.value < b.value : a.value > b.value;
    });
    for (const Json& b : json["benchmarks"])
      if (b.value("error_occurred", false))
        report.findings.push_back({Tone::bad,
                                   "bench: " + Printable(b.at("name").get<std::string>(), 200),
                                   Printable(b.value("error_message", "failed"), 200)});
    if (!bars.bars.empty()) report.bars.push_back(std::move(bars));
    report.sources.push_back({Printable(path), "", ContextOf(json)});
  } catch (const Json::exception& error) {
    Fail("{}: not what --benchmark_out writes: {}", path, Printable(error.what()));
  }
}

void AddPasses(const std::string& path, const std::vector<Json>& rows, Report& report) {
  Bars bars = {"Whole passes", "", "tokens per second", 0, {}};
  try {
    for (const Json& row : rows) {
      const double speed = row.at("tok/s").get<double>();
      bars.bars.push_back(
          {fmt::format("{}, {} tokens at depth {}",
                       Printable(row.at("run").get<std::string>(), 200),
                       row.at("tokens").get<size_t>(), row.at("depth").get<size_t>()),
           speed,
           fmt::format("{:.4g} tok/s, {:.3g} ms, {:.0f} % of the roof", speed,
                       row.at("ms").get<double>(), row.at("%roof").get<double>()),
           Tone::neutral});
      bars.end = std::max(bars.end, speed);
    }
  } catch (const Json::exception& error) {
    Fail("{}: not what 'lab bench --forward --format jsonl' prints: {}", path,
         Printable(error.what()));
  }
  report.bars.push_back(std::move(bars));
  report.sources.push_back({Printable(path), "", Table({"", ""})});
}

}  // namespace lab
