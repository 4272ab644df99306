#include "bench/baseline.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "lab/cli.h"
#include "lab/error.h"
#include "lab/names.h"
#include "lab/output.h"

namespace lab {

double Nanoseconds(double value, const std::string& unit) {
  return value * (unit == "s" ? 1e9 : unit == "ms" ? 1e6 : unit == "us" ? 1e3 : 1);
}

Medians ReadMedians(const std::string& path) {
  const auto report = nlohmann::json::parse(ReadText(path), nullptr, false);
  Medians medians, singles;
  try {
    for (const auto& b : report.at("benchmarks")) {
      const bool single = b.value("run_type", "") == "iteration";
      if (b.value("error_occurred", false)) continue;
      if (!single && b.value("aggregate_name", "") != "median") continue;
      (single ? singles : medians)[b.at("run_name")] =
          Nanoseconds(b.at("real_time"), b.at("time_unit"));
    }
  } catch (const nlohmann::json::exception&) {
    Fail("{}: not what --benchmark_out writes as JSON", path);
  }
  medians.merge(singles);
  if (medians.empty()) Fail("{}: holds no times", path);
  return medians;
}

double ParseSlowdown(const std::string& text) {
  double percent = 0;
  const std::string number = text.ends_with('%') ? text.substr(0, text.size() - 1) : text;
  const char* last = number.data() + number.size();
  const auto [end, error] = std::from_chars(number.data(), last, percent);
  if (error != std::errc() || end != last || !std::isfinite(percent) || percent < 0)
    Fail("--max-slowdown {}: expected a percentage such as 5%", Printable(text));
  return percent / 100;
}

int CompareWithBaseline(const Medians& now, const Medians& before, double most) {
  struct Slower {
    double by;
    std::string name;
    double before, now;
  };
  std::vector<Slower> slower;
  size_t shared = 0;
  for (const auto& [name, time] : now) {
    const auto old = before.find(name);
    if (old == before.end()) continue;
    ++shared;
    const double by = time / old->second - 1;
    if (by > most) slower.push_back({by, name, old->second, time});
  }
  if (shared == 0) throw Error(kNotComparable, "--baseline: it shares no benchmark with this run");
  std::sort(slower.begin(), slower.end(), [](const auto& a, const auto& b) { return a.by > b.by; });
  Table table({"slower by", "before", "now", "benchmark"});
  for (const Slower& s : slower)
    table.Add({fmt::format("{:.1f}%", 100 * s.by), fmt::format("{:.3f} us", s.before / 1e3),
               fmt::format("{:.3f} us", s.now / 1e3), s.name});
  if (!slower.empty()) PrintErr(table.ToText());
  PrintErr(fmt::format("lab: {} of {} benchmarks slower than the baseline by more than {}%\n",
                       slower.size(), shared, 100 * most));
  return slower.empty() ? kPass : kTooSlow;
}

}  // namespace lab
