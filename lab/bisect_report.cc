#include "lab/bisect_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lab/error.h"
#include "lab/json.h"
#include "lab/select.h"
#include "lab/table.h"

namespace lab {
namespace {

std::string Short(const std::optional<double>& x) {
  return x ? fmt::format("{:.1e}", *x) : "";
}

std::string Element(const Verdict& v) {
  return fmt::format("{}[t{}, {}]", v.output, v.token, v.channel);
}

std::string VerdictLine(const BisectResult& result) {
  const StepVerdict* first = result.FirstWrong();
  const size_t steps = result.steps.size();
  const auto worst = std::max_element(
      result.steps.begin(), result.steps.end(),
      [](const auto& a, const auto& b) { return a.verdict.worst < b.verdict.worst; });
  std::string text;
  if (first) {
    const Verdict& v = first->verdict;
    text = fmt::format(
        "WRONG from {} on: op {}, row {}: {}\n      worst {}: {:.7g}, should be {:.7g}{}\n      {} "
        "of {} steps are wrong on the oracle's own input\n",
        first->name, NameOf(first->use.row->op), NameOf(first->use), v.why, Element(v), v.got,
        v.expected, v.blame.empty() ? "" : "; " + v.blame, result.wrong(), steps);
  } else {
    text = fmt::format(
        "within contract {}, no wrong step: all {} are within their tolerance on the oracle's own "
        "input, the worst at {:.3f} of it ({})\n",
        NameOf(result.contract), steps, worst->verdict.worst, worst->name);
  }
  const auto idle = std::count_if(result.steps.begin(), result.steps.end(), [](const auto& s) {
    return s.verdict.status == Status::not_run;
  });
  if (idle > 0) text += fmt::format("on {} steps the mutant changes no bit\n", idle);
  if (result.not_finite)
    text += fmt::format("first value that is not finite: {}\n", *result.not_finite);
  return text;
}

Json ToJson(const StepVerdict& s) {
  const Verdict& v = s.verdict;
  const auto optional = [](const std::optional<double>& x) { return x ? Number(*x) : Json(); };
  return {{"kind", "step"},
          {"step", s.name},
          {"layer", LayerToJson(s.layer)},
          {"op", NameOf(s.use.row->op)},
          {"row", NameOf(s.use)},
          {"contract", NameOf(s.use.row->contract)},
          {"verdict", s.wrong() ? "fail" : NameOf(v.status)},
          {"err_over_tol", Number(v.worst)},
          {"local_error", Number(v.error())},
          {"tolerance", Number(v.tolerance)},
          {"output", v.output},
          {"token", v.token},
          {"channel", v.channel},
          {"got", Number(v.got)},
          {"expected", Number(v.expected)},
          {"compared", v.compared},
          {"accumulated", optional(s.accumulated)},
          {"amplification", optional(s.amplification)},
          {"why", v.why},
          {"blame", v.blame}};
}

}  // namespace

std::string BisectToText(const BisectResult& result, size_t places) {
  std::vector<const StepVerdict*> worst;
  for (const StepVerdict& s : result.steps) worst.push_back(&s);
  std::stable_sort(worst.begin(), worst.end(), [](const auto* a, const auto* b) {
    if (a->wrong() != b->wrong()) return a->wrong();
    return a->verdict.worst > b->verdict.worst;
  });
  worst.resize(std::min(places, worst.size()));
  Table table({"verdict", "step", "row", "err/tol", "local error", "tolerance", "worst", "got",
               "oracle", "accumulated", "amplified"});
  for (const StepVerdict* s : worst) {
    const Verdict& v = s->verdict;
    table.Add({std::string(NameOf(v.status)), s->name, NameOf(s->use),
               fmt::format("{:.3f}", v.worst), fmt::format("{:.1e}", v.error()),
               fmt::format("{:.1e}", v.tolerance), Element(v), fmt::format("{:.7g}", v.got),
               fmt::format("{:.7g}", v.expected), Short(s->accumulated),
               s->amplification ? fmt::format("{:.2g}x", *s->amplification) : ""});
  }
  return VerdictLine(result) + "\n" + table.ToText() +
         "\naccumulated: error along the candidate's own chain over the oracle's size, worst "
         "token; amplified: the same over that of the step's input\n";
}

std::string BisectToJsonl(const BisectResult& result, const MadeBy& made_by) {
  std::string out;
  for (const StepVerdict& s : result.steps) out += ToLine(ToJson(s));
  const StepVerdict* first = result.FirstWrong();
  return out + ToLine({{"kind", "summary"},
                       {"contract", NameOf(result.contract.contract)},
                       {"kv", NameOf(result.contract.kv)},
                       {"steps", result.steps.size()},
                       {"wrong", result.wrong()},
                       {"first", first ? Json(first->name) : Json()},
                       {"op", first ? Json(NameOf(first->use.row->op)) : Json()},
                       {"layer", first ? LayerToJson(first->layer) : Json()},
                       {"not_finite", result.not_finite ? Json(*result.not_finite) : Json()},
                       {"made_by", ToJson({made_by})}});
}

int BisectExitCode(const BisectResult& result) {
  return result.not_finite ? kNonFinite : result.FirstWrong() ? kNumericFailure : kPass;
}

std::string StepBlameToText(const StepBlame& blame) {
  Table table({"step", "row", "KL alone", "of the whole", "KL repaired", "removes"});
  const auto share = [&](double part) {
    return blame.candidate > 0 ? fmt::format("{:.1f}%", 100 * part / blame.candidate) : "";
  };
  for (const BlamedStep& s : blame.steps)
    table.Add({s.name, NameOf(s.use), fmt::format("{:.2e}", s.alone), share(s.alone),
               fmt::format("{:.2e}", s.repaired), share(blame.candidate - s.repaired)});
  const BlamedStep& first = blame.steps.front();
  return fmt::format(
             "{} moves the logits most: KL {:.2e} alone, of {:.2e} for the whole candidate\n\n",
             first.name, first.alone, blame.candidate) +
         table.ToText() +
         fmt::format(
             "\nKL of the last token's logits from the clean pass (hwy f32, itself {:.1e} from the "
             "oracle).\nalone: the clean pass with this one step by the candidate; repaired: the "
             "candidate with this one step clean\n(removes less than nothing where roundings "
             "behind it fall otherwise).\n{} steps are the same in both passes and were "
             "not run.\n",
             blame.oracle, blame.same);
}

std::string StepBlameToJsonl(const StepBlame& blame, const MadeBy& made_by) {
  std::string out;
  for (const BlamedStep& s : blame.steps)
    out += ToLine({{"kind", "blame"},
                   {"step", s.name},
                   {"layer", LayerToJson(s.layer)},
                   {"op", NameOf(s.op)},
                   {"row", NameOf(s.use)},
                   {"kl_alone", Number(s.alone)},
                   {"kl_repaired", Number(s.repaired)}});
  return out + ToLine({{"kind", "summary"},
                       {"steps", blame.steps.size()},
                       {"same", blame.same},
                       {"kl_candidate", Number(blame.candidate)},
                       {"kl_clean", Number(blame.oracle)},
                       {"made_by", ToJson({made_by})}});
}

int StepBlameExitCode(const StepBlame& blame) {
  return std::isfinite(blame.candidate) ? kPass : kNonFinite;
}

std::string XrayToText(const std::vector<Xray>& xrays) {
  const auto wrong =
      std::find_if(xrays.begin(), xrays.end(), [](const Xray& x) { return x.wrong > 0; });
  std::string text;
  if (wrong == xrays.end())
    text = fmt::format("every weight of {} matrices is read as it is\n\n", xrays.size());
  else
    text = fmt::format("{} reads {} wrongly: {} {}\n\n", NameOf(wrong->use), wrong->matrix,
                       wrong->findings[0].field, wrong->findings[0].what);
  Table table({"matrix", "row", "weights", "wrong", "field", "what", "rows", "parts", "first"});
  for (const Xray& x : xrays) {
    const std::vector<std::string> head = {
        x.matrix, NameOf(x.use), fmt::format("{} {}x{}", InfoOf(x.w.type).name, x.w.rows, x.w.cols),
        fmt::format("{}", x.wrong)};
    const auto add = [&](std::vector<std::string> tail) {
      tail.insert(tail.begin(), head.begin(), head.end());
      table.Add(std::move(tail));
    };
    if (x.findings.empty()) add({"-", "", "", "", ""});
    for (const XrayFinding& f : x.findings)
      add({f.field, f.what, fmt::format("{} of {} to {}", f.rows, f.first_row, f.last_row),
           fmt::format("{}", f.parts), f.where});
  }
  return text + table.ToText();
}

std::string XrayToJsonl(const std::vector<Xray>& xrays, const MadeBy& made_by) {
  std::string out;
  for (const Xray& x : xrays) {
    Json findings = Json::array();
    for (const XrayFinding& f : x.findings)
      findings.push_back({{"field", f.field},
                          {"what", f.what},
                          {"parts", f.parts},
                          {"rows", f.rows},
                          {"first_row", f.first_row},
                          {"last_row", f.last_row},
                          {"where", f.where}});
    out += ToLine({{"kind", "xray"},
                   {"matrix", x.matrix},
                   {"row", NameOf(x.use)},
                   {"type", InfoOf(x.w.type).name},
                   {"rows", x.w.rows},
                   {"cols", x.w.cols},
                   {"wrong", x.wrong},
                   {"findings", findings}});
  }
  const auto wrong =
      std::count_if(xrays.begin(), xrays.end(), [](const Xray& x) { return x.wrong > 0; });
  return out + ToLine({{"kind", "summary"},
                       {"matrices", xrays.size()},
                       {"wrong", wrong},
                       {"made_by", ToJson({made_by})}});
}

int XrayExitCode(const std::vector<Xray>& xrays) {
  return std::any_of(xrays.begin(), xrays.end(), [](const Xray& x) { return x.wrong > 0; })
             ? kNumericFailure
             : kPass;
}

}  // namespace lab
