#include "lab/local_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "lab/error.h"
#include "lab/json.h"

namespace lab {
namespace {

constexpr size_t kWorst = 12;  // steps shown

std::string Where(const LocalStep& s) {
  return fmt::format("{} token {} channel {}", s.place, s.verdict.token, s.verdict.channel);
}

// "q_proj" of "L03.q_proj".
std::string KindOf(const LocalStep& s) {
  const std::string name = s.range();
  return s.layer == kNoLayer ? name : name.substr(name.find('.') + 1);
}

bool IsNotFinite(const LocalStep& s) {
  return s.wrong() && !std::isfinite(s.verdict.got);
}

std::string VerdictLine(const LocalResult& result) {
  const LocalStep* first = result.FirstWrong();
  if (result.judged() == 0)
    return "NOTHING JUDGED: no step has the taps that it reads and writes in the file\n";
  if (!first) {
    const auto worst = std::max_element(
        result.steps.begin(), result.steps.end(), [](const LocalStep& a, const LocalStep& b) {
          return (a.judged() ? a.verdict.worst : -1) < (b.judged() ? b.verdict.worst : -1);
        });
    return fmt::format(
        "no wrong step: all {} are within their tolerance on the run's own input, the worst at "
        "{:.3f} of it ({})\n",
        result.judged(), worst->verdict.worst, worst->range());
  }
  const Verdict& v = first->verdict;
  return fmt::format(
      "WRONG from {} on: op {}: {}\n      worst {}: {:.7g}, should be {:.7g}{}\n      {} of {} "
      "steps are wrong on the run's own input\n",
      first->range(), first->ops(), v.why, Where(*first), v.got, v.expected,
      v.blame.empty() ? "" : "; " + v.blame, result.wrong(), result.judged());
}

// What nobody has said and the verdict rests on.
std::string Assumptions(const LocalResult& result) {
  const auto source = [](bool guess) {
    return guess ? "assumed, the file does not say it" : "as the file says";
  };
  std::string text = fmt::format("contract {}: {}; KV {}: {}\n", NameOf(result.contract.contract),
                                 source(result.contract_is_a_guess), NameOf(result.contract.kv),
                                 source(result.kv_is_a_guess));
  if (result.bits) return text;
  return text + fmt::format(
                    "values: rounded to {} when they were stored, which the tolerances allow for "
                    "at both ends of a step\n",
                    NameOf(result.storage.inputs));
}

// The steps of one kind, whatever their layer.
struct Kind {
  std::string name;
  size_t judged = 0, wrong = 0, not_judged = 0;
  const LocalStep* worst = nullptr;
  const LocalStep* first_wrong = nullptr;
};

// Of every kind of which a step is judged, in the order of the pass.
std::vector<Kind> KindsOf(const LocalResult& result) {
  std::vector<Kind> kinds;
  const auto find = [&](const LocalStep& s) {
    return std::find_if(kinds.begin(), kinds.end(),
                        [&](const Kind& k) { return k.name == KindOf(s); });
  };
  for (const LocalStep& s : result.steps) {
    if (!s.judged()) continue;
    auto kind = find(s);
    if (kind == kinds.end()) kind = kinds.insert(kind, {KindOf(s)});
    ++kind->judged, kind->wrong += s.wrong();
    if (!kind->worst || !(s.verdict.worst <= kind->worst->verdict.worst)) kind->worst = &s;
    if (s.wrong() && !kind->first_wrong) kind->first_wrong = &s;
  }
  for (const LocalStep& s : result.steps)
    if (const auto kind = find(s); kind != kinds.end()) kind->not_judged += !s.judged();
  return kinds;
}

std::string KindsToText(const LocalResult& result) {
  const std::vector<Kind> kinds = KindsOf(result);
  if (kinds.empty()) return "";
  Table table(
      {"step", "op", "judged", "wrong", "not judged", "worst err/tol", "at", "first wrong"});
  for (const Kind& kind : kinds)
    table.Add({kind.name, kind.worst->ops(), fmt::format("{}", kind.judged),
               fmt::format("{}", kind.wrong), fmt::format("{}", kind.not_judged),
               fmt::format("{:.3f}", kind.worst->verdict.worst), Where(*kind.worst),
               kind.first_wrong ? kind.first_wrong->range() : ""});
  std::string text = fmt::format("\n{}", table.ToText());
  for (const Kind& kind : kinds)
    if (kind.wrong > 1 && 10 * kind.wrong >= 9 * kind.judged)
      text += fmt::format(
          "note: {} is wrong in {} of {} layers: rather other weights or another contract than one "
          "bad kernel\n",
          kind.name, kind.wrong, kind.judged);
  return text;
}

Table StepTable(const std::vector<const LocalStep*>& steps) {
  Table table(
      {"verdict", "step", "op", "err/tol", "local error", "tolerance", "worst", "got", "oracle"});
  for (const LocalStep* s : steps) {
    const Verdict& v = s->verdict;
    table.Add({std::string(NameOf(v.status)), s->range(), s->ops(), fmt::format("{:.3f}", v.worst),
               fmt::format("{:.1e}", v.error()), fmt::format("{:.1e}", v.tolerance), Where(*s),
               fmt::format("{:.7g}", v.got), fmt::format("{:.7g}", v.expected)});
  }
  return table;
}

// Wrong ones in the order of the pass.
std::string WrongToText(const LocalResult& result) {
  std::vector<const LocalStep*> wrong;
  for (const LocalStep& s : result.steps)
    if (s.wrong()) wrong.push_back(&s);
  if (wrong.empty()) return "";
  const size_t all = wrong.size();
  wrong.resize(std::min(kWorst, all));
  return fmt::format(
      "\n{}{}", StepTable(wrong).ToText(),
      all > wrong.size() ? fmt::format("... and {} more\n", all - wrong.size()) : "");
}

// A tap without its layer, which the line says.
std::string Bare(const std::string& path) {
  const size_t dot = path[0] == 'L' ? path.find('.') : std::string::npos;
  return dot == std::string::npos ? path : path.substr(dot + 1);
}

// By kind of step and what is missing; layers of which nothing is judged together.
std::string NotJudgedToText(const LocalResult& result) {
  std::set<int> all, judged;
  for (const LocalStep& s : result.steps) {
    if (s.layer != kNoLayer) all.insert(s.layer);
    if (s.judged()) judged.insert(s.layer);
  }
  std::vector<std::pair<std::string, std::set<int>>> lines;
  for (const LocalStep& s : result.steps) {
    if (s.judged() || (s.layer != kNoLayer && !judged.contains(s.layer))) continue;
    std::vector<std::string> missing;
    for (const std::string& m : s.missing) missing.push_back(Bare(m));
    const std::string line = fmt::format("{} ({})", KindOf(s), fmt::join(missing, ", "));
    auto it =
        std::find_if(lines.begin(), lines.end(), [&](const auto& l) { return l.first == line; });
    if (it == lines.end()) it = lines.insert(it, {line, {}});
    it->second.insert(s.layer);
  }
  judged.erase(kNoLayer);
  std::string text;
  for (const auto& [line, layers] : lines)
    text += *layers.begin() == kNoLayer ? fmt::format("  {}\n", line)
                                        : fmt::format("  {}: {} layers, from layer {} on\n", line,
                                                      layers.size(), *layers.begin());
  if (judged.size() < all.size())
    text += fmt::format("  {} of {} layers: no step has its taps in the file\n",
                        all.size() - judged.size(), all.size());
  return text.empty() ? "" : fmt::format("\nnot judged: step (what the file lacks)\n{}", text);
}

std::string ToText(const RunRecord& run, const LocalResult& result) {
  std::string text = VerdictLine(result) + Assumptions(result);
  for (const std::string& remark : run.report.remarks) text += fmt::format("note: {}\n", remark);
  for (const std::string& what : run.report.first_of_them)
    text += fmt::format("note: not understood: {}\n", what);
  if (run.report.unexplained > run.report.first_of_them.size())
    text += fmt::format("note: {} tensors in all were not understood\n", run.report.unexplained);
  return text + WrongToText(result) + KindsToText(result) + NotJudgedToText(result);
}

Json ToJson(const LocalStep& s) {
  Json step = {{"kind", "step"},
               {"step", s.name},
               {"layer", LayerToJson(s.layer)},
               {"op", NameOf(s.op)},
               {"verdict", !s.judged() ? "not judged"
                           : s.wrong() ? "fail"
                                       : "pass"}};
  if (!s.judged()) {
    step["missing"] = s.missing;
    return step;
  }
  step["over"] = Json::array();
  for (const auto& [name, op] : s.over) step["over"].push_back(name);
  const Verdict& v = s.verdict;
  step["err_over_tol"] = Number(v.worst), step["local_error"] = Number(v.error());
  step["tolerance"] = Number(v.tolerance), step["tap"] = s.place, step["token"] = v.token;
  step["channel"] = v.channel, step["got"] = Number(v.got), step["expected"] = Number(v.expected);
  step["compared"] = v.compared, step["why"] = v.why, step["blame"] = v.blame;
  return step;
}

std::string ToJsonl(const RunRecord& run, const LocalResult& result) {
  std::string out;
  for (const LocalStep& s : result.steps) out += ToLine(ToJson(s));
  const LocalStep* first = result.FirstWrong();
  return out + ToLine({{"kind", "summary"},
                       {"judged", result.judged()},
                       {"wrong", result.wrong()},
                       {"not_judged", result.steps.size() - result.judged()},
                       {"first", first ? Json(first->name) : Json()},
                       {"op", first ? Json(NameOf(first->op)) : Json()},
                       {"layer", first ? LayerToJson(first->layer) : Json()},
                       {"contract", NameOf(result.contract.contract)},
                       {"contract_is_a_guess", result.contract_is_a_guess},
                       {"kv", NameOf(result.contract.kv)},
                       {"kv_is_a_guess", result.kv_is_a_guess},
                       {"stored", NameOf(result.storage.inputs)},
                       {"unexplained", run.report.unexplained},
                       {"exit", LocalExitCode(result)}});
}

}  // namespace

std::string LocalTo(Format format, const RunRecord& run, const LocalResult& result) {
  if (format == Format::text) return ToText(run, result);
  if (format == Format::jsonl) return ToJsonl(run, result);
  std::vector<const LocalStep*> judged;
  for (const LocalStep& s : result.steps)
    if (s.judged()) judged.push_back(&s);
  return StepTable(judged).To(format);
}

int LocalExitCode(const LocalResult& result) {
  if (result.judged() == 0) return kNotComparable;
  if (std::any_of(result.steps.begin(), result.steps.end(), IsNotFinite)) return kNonFinite;
  return result.FirstWrong() ? kNumericFailure : kPass;
}

}  // namespace lab
