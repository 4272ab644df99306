#include "lab/inspect_run.h"

#include <algorithm>
#include <map>
#include <set>

#include "lab/error.h"
#include "lab/json.h"
#include "lab/laws.h"
#include "lab/names.h"
#include "lab/output.h"
#include "lab/run_record.h"

namespace lab {
namespace {

// What a run holds of one tap.
struct Held {
  std::set<int> layers;
  std::set<size_t> tokens;
  size_t records = 0, pooled = 0, sketches = 0, tensors = 0, values = 0;
};

std::map<Tap, Held> HeldBy(const RunRecord& run) {
  std::map<Tap, Held> taps;
  for (const auto& [place, record] : run.tokens) {
    Held& held = taps[place.tap];
    held.layers.insert(place.layer);
    held.tokens.insert(place.token);
    ++held.records;
    held.sketches += record.sketch.has_value();
    held.tensors += record.row.has_value();
    held.values += record.values.size();
  }
  for (const auto& [key, record] : run.pooled) {
    Held& held = taps[key.second];
    held.layers.insert(key.first);
    for (const size_t token : record.tokens.Read()) held.tokens.insert(token);
    ++held.pooled;
  }
  return taps;
}

std::string Form(const Held& held) {
  std::vector<std::string> forms;
  if (held.tensors) forms.push_back("tensors");
  if (held.sketches) forms.push_back("sketches");
  if (held.values) forms.push_back(fmt::format("{} single values", held.values));
  if (held.records && !held.tensors && !held.values) forms.push_back("figures by token");
  if (held.pooled) forms.push_back("pooled figures");
  return fmt::format("{}", fmt::join(forms, ", "));
}

std::vector<std::pair<std::string, std::string>> HeaderLines(const RunRecord& run) {
  const RunHeader& h = run.header;
  std::vector<std::pair<std::string, std::string>> lines = {{"format", h.format}};
  const auto add = [&](const char* key, const auto& value) {
    lines.emplace_back(key, value ? Printable(fmt::format("{}", *value), 120) : "unknown");
  };
  add("model", h.model), add("sha256", h.sha256), add("layers", h.layers);
  lines.emplace_back(
      "tokens", h.ids ? fmt::format("{}: {}", h.ids->size(), fmt::join(*h.ids, " ")) : "unknown");
  add("backend", h.backend), add("contract", h.contract), add("KV", h.kv);
  const bool only_pooled = run.tokens.empty() && !run.pooled.empty();
  lines.emplace_back("std", (h.std_kind ? std::string(NameOf(*h.std_kind)) : "unknown") +
                                (only_pooled ? ", pooled over tokens" : ""));
  return lines;
}

// The checks of one law.
struct LawTotal {
  size_t checked = 0, broken = 0;
  const LawCheck* worst = nullptr;
  const LawCheck* first_broken = nullptr;
};

std::map<std::string_view, LawTotal> TotalsOf(const std::vector<LawCheck>& checks) {
  std::map<std::string_view, LawTotal> totals;
  for (const LawCheck& c : checks) {
    LawTotal& total = totals[c.law];
    ++total.checked;
    if (!c.holds() && total.broken++ == 0) total.first_broken = &c;
    if (!total.worst || c.ratio() > total.worst->ratio()) total.worst = &c;
  }
  return totals;
}

std::string Where(const LawCheck& c) {
  const std::string path = TapPath(c.place.tap, c.place.layer);
  if (c.pooled) return path + " pooled";
  if (!c.by_values) return fmt::format("{} token {}", path, c.place.token);
  return fmt::format("{} token {} channel {}", path, c.place.token, c.channel);
}

std::string ToText(const RunRecord& run, const std::vector<LawCheck>& checks) {
  std::string text = run.header.path + "\n";
  for (const auto& [key, value] : HeaderLines(run)) text += fmt::format("  {:<9} {}\n", key, value);
  for (const std::string& remark : run.report.remarks) text += fmt::format("note: {}\n", remark);
  if (run.report.unexplained > 0)
    text += fmt::format("note: {} lines or tensors were not understood: {}\n",
                        run.report.unexplained, fmt::join(run.report.first_of_them, "; "));
  Table taps({"tap", "layers", "tokens", "holds"});
  for (const auto& [tap, held] : HeldBy(run))
    taps.Add({std::string(InfoOf(tap).name), fmt::format("{}", held.layers.size()),
              held.tokens.empty() ? "unknown" : fmt::format("{}", held.tokens.size()), Form(held)});
  text += fmt::format("\n{}", taps.ToText());
  Table laws({"law", "of", "checked", "broken", "worst", "where"});
  const auto totals = TotalsOf(checks);
  for (const bool broken : {true, false})
    for (const auto& [law, total] : totals) {
      if ((total.broken > 0) != broken) continue;
      const LawCheck& shown = broken ? *total.first_broken : *total.worst;
      laws.Add({std::string(law), shown.by_values ? "values" : "figures",
                fmt::format("{}", total.checked), fmt::format("{}", total.broken),
                fmt::format("{:.3g}", shown.ratio()), Where(shown)});
    }
  if (!checks.empty()) text += fmt::format("\n{}", laws.ToText());
  const auto broken =
      std::count_if(checks.begin(), checks.end(), [](const LawCheck& c) { return !c.holds(); });
  const auto first =
      std::find_if(checks.begin(), checks.end(), [](const LawCheck& c) { return !c.holds(); });
  if (checks.empty()) return text + "\nno law applies: too few taps\n";
  if (broken == 0) return text + fmt::format("\nall laws hold, {} checks\n", checks.size());
  return text + fmt::format("\n{} of {} checks broken, the first: {} at {}\n", broken,
                            checks.size(), first->law, Where(*first));
}

std::string ToJsonl(const RunRecord& run, const std::vector<LawCheck>& checks) {
  Json header = {{"kind", "run"}};
  for (const auto& [key, value] : HeaderLines(run)) header[key] = value;
  header["unexplained"] = run.report.unexplained;
  header["remarks"] = run.report.remarks;
  std::string out = ToLine(header);
  for (const auto& [tap, held] : HeldBy(run))
    out += ToLine({{"kind", "held"},
                   {"tap", InfoOf(tap).name},
                   {"layers", held.layers.size()},
                   {"tokens", held.tokens.size()},
                   {"records", held.records},
                   {"pooled", held.pooled},
                   {"sketches", held.sketches},
                   {"tensors", held.tensors},
                   {"values", held.values}});
  size_t broken = 0;
  for (const auto& [law, total] : TotalsOf(checks)) {
    broken += total.broken;
    const LawCheck& shown = total.broken ? *total.first_broken : *total.worst;
    out += ToLine({{"kind", "law"},
                   {"law", law},
                   {"checked", total.checked},
                   {"broken", total.broken},
                   {"place", Where(shown)},
                   {"error", Number(shown.error)},
                   {"allowed", Number(shown.allowed)}});
  }
  return out + ToLine({{"kind", "summary"}, {"checks", checks.size()}, {"broken", broken}});
}

}  // namespace

int InspectRun(const std::string& path, const std::string& names, Format format) {
  const RunRecord run = ReadRun(path, names.empty() ? NameMap::BuiltIn() : NameMap::Read(names));
  const std::vector<LawCheck> checks = CheckLaws(run);
  PrintOut(format == Format::jsonl ? ToJsonl(run, checks) : ToText(run, checks));
  const bool broken =
      std::any_of(checks.begin(), checks.end(), [](const LawCheck& c) { return !c.holds(); });
  return broken ? kNumericFailure : kPass;
}

}  // namespace lab
