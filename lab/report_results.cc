// Results of `lab check` and `lab bisect` in a report.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "lab/check_report.h"
#include "lab/error.h"
#include "lab/names.h"
#include "lab/report.h"

namespace lab {
namespace {

constexpr size_t kCards = 6, kBars = 24;

std::string Text(const Json& record, const char* key) {
  return Printable(record.at(key).get<std::string>(), 200);
}

std::string Short(const Json& number) {
  return number.is_null() ? "" : fmt::format("{:.3g}", ToNumber(number));
}

double OrZero(double x) {
  return std::isfinite(x) ? x : 0;
}

// "L03.q_proj" as its layer and the rest; outside the layers the first is empty.
std::pair<std::string, std::string> SplitStep(const std::string& name, const Json& layer) {
  const size_t dot = name.find('.');
  if (layer.is_null() || dot == std::string::npos) return {"", name};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

// Cells by the names of their row and column, in the order in which these first appear; a column
// that only a later row has comes behind the one that it follows there.
class NamedGrid {
 public:
  void Add(const std::string& row, const std::string& column) {
    if (row.empty()) return Append(outside_, column);
    if (rows_.empty() || rows_.back() != row) last_ = columns_.size();
    Append(rows_, row);
    if (Find(columns_, column) == columns_.size())
      columns_.insert(
          columns_.begin() + static_cast<ptrdiff_t>(std::min(last_ + 1, columns_.size())), column);
    last_ = Find(columns_, column);
  }
  void Label(HeatMap& map) const {
    map.rows = rows_, map.columns = columns_, map.outside = outside_;
  }
  size_t cells() const { return rows_.size() * columns_.size() + outside_.size(); }
  size_t IndexOf(const std::string& row, const std::string& column) const {
    if (row.empty()) return rows_.size() * columns_.size() + Find(outside_, column);
    return Find(rows_, row) * columns_.size() + Find(columns_, column);
  }

 private:
  static size_t Find(const std::vector<std::string>& list, const std::string& name) {
    return static_cast<size_t>(std::find(list.begin(), list.end(), name) - list.begin());
  }
  static void Append(std::vector<std::string>& list, const std::string& name) {
    if (Find(list, name) == list.size()) list.push_back(name);
  }
  std::vector<std::string> rows_, columns_, outside_;
  size_t last_ = 0;  // the column of the last call
};

// --- lab bisect ---

Card StepCard(const Json& j) {
  Card card = {j.at("verdict") == "fail" ? Tone::bad : Tone::neutral,
               fmt::format("{} {}[t{}, {}]", Text(j, "step"), Text(j, "output"),
                           j.at("token").get<size_t>(), j.at("channel").get<size_t>()),
               Short(j.at("err_over_tol")),
               "of the tolerance",
               {}};
  card.facts = {{"got", fmt::format("{:.7g}", ToNumber(j.at("got")))},
                {"should be", fmt::format("{:.7g}", ToNumber(j.at("expected")))},
                {"local error", Short(j.at("local_error"))},
                {"tolerance", Short(j.at("tolerance"))},
                {"row", Text(j, "row")}};
  if (!j.at("accumulated").is_null())
    card.facts.emplace_back("accumulated", Short(j["accumulated"]));
  if (const std::string blame = Text(j, "blame"); !blame.empty())
    card.facts.emplace_back("blame", blame);
  return card;
}

HeatMap StepMap(const std::vector<const Json*>& steps, bool accumulated) {
  HeatMap map;
  NamedGrid grid;
  for (const Json* j : steps) {
    const auto [row, column] = SplitStep(Text(*j, "step"), j->at("layer"));
    grid.Add(row, column);
  }
  grid.Label(map);
  map.scale = accumulated ? Scale::magnitude : Scale::tolerance;
  map.title = accumulated ? "Accumulated error" : "Local error";
  map.note = accumulated ? "Along the candidate's own chain, relative to the size of the oracle's "
                           "row; the worst token."
                         : "Of each step on the oracle's own input, over its tolerance.";
  map.figures = accumulated ? std::vector<std::string>{"relative error", "times that of its input"}
                            : std::vector<std::string>{"of the tolerance", "error", "tolerance"};
  map.mark = "a wrong step";
  HeatMap::Frame frame = {"", std::vector<std::optional<Cell>>(grid.cells())};
  for (const Json* j : steps) {
    const auto [row, column] = SplitStep(Text(*j, "step"), j->at("layer"));
    Cell cell;
    if (accumulated && j->at("accumulated").is_null()) continue;
    const auto number = [&](const char* key) {
      return j->at(key).is_null() ? std::nan("") : ToNumber(j->at(key));
    };
    cell.figures = accumulated ? std::vector{number("accumulated"), number("amplification")}
                               : std::vector{number("err_over_tol"), number("local_error"),
                                             number("tolerance")};
    cell.marked = j->at("verdict") == "fail";
    cell.note = Text(*j, "row");
    frame.cells[grid.IndexOf(row, column)] = std::move(cell);
  }
  map.frames = {std::move(frame)};
  return map;
}

void AddBisect(const Results& results, Report& report) {
  std::vector<const Json*> steps;
  for (const Json& j : results.records)
    if (j["kind"] == "step") steps.push_back(&j);
  const Json& summary = results.summaries.at(0);
  const size_t wrong = summary.at("wrong");
  if (wrong > 0)
    report.findings.push_back(
        {Tone::bad, fmt::format("bisect: wrong from {} on", Text(summary, "first")),
         fmt::format("op {}; {} of {} steps are wrong on the oracle's own input",
                     Text(summary, "op"), wrong, steps.size())});
  else
    report.findings.push_back({Tone::good, "bisect: no wrong step",
                               fmt::format("{} steps within their tolerance", steps.size())});
  if (!summary.at("not_finite").is_null())
    report.findings.push_back(
        {Tone::bad, "bisect: not finite from " + Text(summary, "not_finite") + " on", ""});
  report.maps.push_back(StepMap(steps, false));
  report.maps.push_back(StepMap(steps, true));
  // Wrong ones in the order of the pass, as bisect names them; then the closest to wrong.
  std::stable_sort(steps.begin(), steps.end(), [](const Json* a, const Json* b) {
    const bool wrong_a = a->at("verdict") == "fail", wrong_b = b->at("verdict") == "fail";
    if (wrong_a != wrong_b) return wrong_a;
    return !wrong_a && ToNumber(a->at("err_over_tol")) > ToNumber(b->at("err_over_tol"));
  });
  for (size_t i = 0; i < std::min(steps.size(), kCards); ++i)
    report.cards.push_back(StepCard(*steps[i]));
}

void AddBlame(const Results& results, Report& report) {
  std::vector<const Json*> steps;
  for (const Json& j : results.records)
    if (j["kind"] == "blame") steps.push_back(&j);
  const auto alone = [](const Json* j) {
    const double kl = ToNumber(j->at("kl_alone"));
    return std::isnan(kl) ? HUGE_VAL : kl;
  };
  std::stable_sort(steps.begin(), steps.end(),
                   [&](const Json* a, const Json* b) { return alone(a) > alone(b); });
  const Json& summary = results.summaries.at(0);
  if (steps.empty()) return;
  const double whole = ToNumber(summary.at("kl_candidate"));
  report.findings.push_back(
      {Tone::neutral, fmt::format("blame: {} moves the logits most", Text(*steps[0], "step")),
       fmt::format("KL {:.3g} alone, of {:.3g} for the whole candidate", alone(steps[0]), whole)});
  Bars bars = {"What each step does to the logits",
               "KL of the last token's logits from the clean pass, with this one step by the "
               "candidate; behind it, of the candidate with this one step clean.",
               "nats",
               OrZero(alone(steps[0])),
               {}};
  for (const Json* j : std::span(steps).first(std::min(steps.size(), kBars)))
    bars.bars.push_back(
        {Text(*j, "step"), OrZero(alone(j)),
         fmt::format("{} (repaired {})", Short(j->at("kl_alone")), Short(j->at("kl_repaired"))),
         Tone::neutral});
  if (steps.size() > kBars)
    bars.note += fmt::format(" The {} largest of {} steps.", kBars, steps.size());
  report.bars.push_back(std::move(bars));
}

void AddXray(const Results& results, Report& report) {
  Table table({"matrix", "row", "field", "what", "rows", "where"});
  size_t matrices = 0, wrong = 0;
  for (const Json& j : results.records) {
    if (j["kind"] != "xray") continue;
    ++matrices;
    wrong += j.at("wrong").get<size_t>() > 0;
    for (const Json& f : j.at("findings"))
      table.Add({Text(j, "matrix"), Text(j, "row"), Text(f, "field"), Text(f, "what"),
                 fmt::format("{}", f.at("rows").get<size_t>()), Text(f, "where")});
  }
  report.findings.push_back(
      {wrong ? Tone::bad : Tone::good,
       wrong ? fmt::format("x-ray: {} of {} matrices are read wrongly", wrong, matrices)
             : fmt::format("x-ray: every weight of {} matrices is read as it is", matrices),
       ""});
  if (table.size() > 0) report.tables.push_back({"Weights read wrongly", "", std::move(table)});
}

// --- lab check ---

Card LineCard(const CheckLine& line) {
  const Verdict& v = line.verdict;
  Card card = {
      v.status == Status::fail ? Tone::bad : Tone::neutral,
      Printable(fmt::format("{} {}[t{}, {}]", line.case_name, v.output, v.token, v.channel)),
      fmt::format("{:.3g}", v.worst),
      "of the tolerance",
      {}};
  card.facts = {{"got", fmt::format("{:.7g}", v.got)},
                {"should be", fmt::format("{:.7g}", v.expected)},
                {"row", Printable(line.row)},
                {"contract", Printable(line.contract)},
                {"target", Printable(line.target)}};
  if (!v.why.empty()) card.facts.emplace_back("why", Printable(v.why, 200));
  if (!v.blame.empty()) card.facts.emplace_back("blame", Printable(v.blame, 200));
  return card;
}

// The worst case of every row.
Bars RowBars(const std::vector<CheckLine>& lines) {
  Bars bars = {"Rows, by the worst of their cases", "", "of the tolerance", 1, {}};
  std::set<std::string> seen;
  size_t rest = 0;
  for (const CheckLine& line : lines) {  // worst first
    if (line.verdict.compared == 0 || !seen.insert(line.row).second) continue;
    if (bars.bars.size() == kBars) {
      ++rest;
      continue;
    }
    bars.bars.push_back({Printable(line.row), std::min(1.0, OrZero(line.verdict.worst)),
                         fmt::format("{:.3g} on {}", line.verdict.worst, Printable(line.case_name)),
                         line.verdict.status == Status::fail ? Tone::bad : Tone::neutral});
  }
  if (rest > 0) bars.note = fmt::format("The {} closest to their tolerance; {} more.", kBars, rest);
  return bars;
}

void AddVerdicts(const Results& results, Report& report) {
  std::vector<CheckLine> lines = CheckLinesOf(results);
  std::stable_sort(lines.begin(), lines.end(), [](const CheckLine& a, const CheckLine& b) {
    const bool bad_a = a.verdict.status == Status::fail, bad_b = b.verdict.status == Status::fail;
    return bad_a != bad_b ? bad_a : a.verdict.worst > b.verdict.worst;
  });
  const auto count = [&](Status status) {
    return std::count_if(lines.begin(), lines.end(),
                         [&](const CheckLine& l) { return l.verdict.status == status; });
  };
  const auto failed = count(Status::fail);
  report.findings.push_back(
      {failed > 0                ? Tone::bad
       : count(Status::pass) > 0 ? Tone::good
                                 : Tone::neutral,
       fmt::format("check: {} passed, {} failed", count(Status::pass), failed),
       fmt::format("{} not built, {} not run", count(Status::not_built), count(Status::not_run))});
  for (size_t i = 0; i < std::min(lines.size(), kCards); ++i)
    if (lines[i].verdict.compared > 0) report.cards.push_back(LineCard(lines[i]));
  if (Bars bars = RowBars(lines); !bars.bars.empty()) report.bars.push_back(std::move(bars));
}

void AddMutants(const Results& results, Report& report) {
  const std::vector<MutantTotal> totals = MutantTotalsOf(results);
  Table table({"verdict", "mutant", "slip", "ops", "problem"});
  size_t mistakes = 0;
  for (const MutantTotal& t : totals) {
    mistakes += t.mistake;
    if (!t.good)
      table.Add({std::string(t.verdict()), Printable(t.mutant), Printable(t.slip), Printable(t.ops),
                 Printable(t.problem, 400)});
  }
  const size_t bad = table.size();
  report.findings.push_back(
      {bad ? Tone::bad : Tone::good,
       bad ? fmt::format("mutants: {} of {} not as they should be", bad, totals.size())
           : fmt::format("mutants: {} mistakes caught, {} correct orders of summation passed",
                         mistakes, totals.size() - mistakes),
       ""});
  if (bad)
    report.tables.push_back({"Mutants that are not as they should be", "", std::move(table)});
}

// --- lab check --forward ---

HeatMap PassMap(const std::vector<const Json*>& taps, const std::string& contract) {
  HeatMap map;
  map.title = "Whole pass, " + contract;
  map.note =
      "Error along the candidate's own chain against the oracle of its contract, over what "
      "is allowed.";
  map.scale = Scale::tolerance;
  map.figures = {"of what is allowed", "error", "allowed", "channel"};
  map.mark = "more than is allowed";
  NamedGrid grid;
  std::set<size_t> tokens;
  const auto row_of = [](const Json& j) {
    return j.at("layer").is_null() ? "" : fmt::format("L{:02}", j["layer"].get<int>());
  };
  for (const Json* j : taps) {
    grid.Add(row_of(*j), Text(*j, "tap"));
    tokens.insert(j->at("token").get<size_t>());
  }
  grid.Label(map);
  map.frames.push_back({"worst of all tokens", {}});
  for (const size_t token : tokens) map.frames.push_back({fmt::format("token {}", token), {}});
  for (HeatMap::Frame& frame : map.frames) frame.cells.resize(grid.cells());
  for (const Json* j : taps) {
    const size_t index = grid.IndexOf(row_of(*j), Text(*j, "tap")), token = j->at("token");
    Cell cell = {{ToNumber(j->at("ratio")), ToNumber(j->at("error")), ToNumber(j->at("allowed")),
                  j->at("channel").get<double>()},
                 j->at("verdict") == "fail",
                 ""};
    const auto frame = static_cast<size_t>(std::distance(tokens.begin(), tokens.find(token))) + 1;
    map.frames[frame].cells[index] = cell;
    auto& worst = map.frames[0].cells[index];
    if (worst && worst->figures[0] >= cell.figures[0]) continue;
    cell.note = fmt::format("token {}", token);
    worst = std::move(cell);
  }
  return map;
}

void AddPass(const Results& results, Report& report) {
  std::map<std::string, std::vector<const Json*>> by_contract;
  for (const Json& j : results.records)
    if (j["kind"] == "tap")
      by_contract[fmt::format("contract {}, KV {}", Text(j, "contract"), Text(j, "kv"))].push_back(
          &j);
  const Json& summary = results.summaries.at(0);
  const size_t failed =
      summary.at("failed").get<size_t>() + summary.at("tokens_failed").get<size_t>();
  report.findings.push_back(
      {failed ? Tone::bad : Tone::good,
       fmt::format("whole pass: {} taps passed, {} failed", summary.at("passed").get<size_t>(),
                   summary.at("failed").get<size_t>()),
       fmt::format("worst {} of the allowed error at {}; {} argmaxes, {} ties, {} failed",
                   Short(summary.at("worst")), Text(summary, "worst_place"),
                   summary.at("positions").get<size_t>(), summary.at("ties").get<size_t>(),
                   summary.at("tokens_failed").get<size_t>())});
  for (const auto& [contract, taps] : by_contract) report.maps.push_back(PassMap(taps, contract));
}

}  // namespace

void AddResults(const Results& results, Report& report) {
  const std::string_view kind = results.kind();
  const std::pair<std::string_view, void (*)(const Results&, Report&)> kKinds[] = {
      {"step", AddBisect}, {"blame", AddBlame},      {"xray", AddXray},     {"tap", AddPass},
      {"logits", AddPass}, {"verdict", AddVerdicts}, {"mutant", AddMutants}};
  const auto* it = std::find_if(std::begin(kKinds), std::end(kKinds),
                                [&](const auto& k) { return k.first == kind; });
  if (it == std::end(kKinds))
    Fail(
        "{}: holds '{}' records, which lab report does not show; it reads those of 'lab check' and "
        "'lab bisect'",
        results.source, Printable(kind));
  try {
    it->second(results, report);
  } catch (const Json::exception& error) {
    Fail("{}: a '{}' record that lab did not print: {}", results.source, Printable(kind),
         Printable(error.what()));
  }
  Table source({"", ""});
  const MadeBy& first = results.made_by.at(0);
  source.Add({"command", Printable(first.command, 400)});
  if (results.made_by.size() > 1)
    source.Add({"parts", fmt::format("{}, joined", results.made_by.size())});
  source.Add({"build", Printable(first.build, 200)});
  std::set<std::string> machines;
  for (const MadeBy& m : results.made_by) machines.insert(Printable(m.machine, 200));
  source.Add({"machine", fmt::format("{}", fmt::join(machines, "; "))});
  if (!first.model.empty()) {
    source.Add({"model", Printable(first.model, 200)});
    if (report.title.empty())
      report.title = Printable(first.model.substr(first.model.rfind('/') + 1), 100);
  }
  report.sources.push_back({Printable(results.source), "", std::move(source)});
}

}  // namespace lab
