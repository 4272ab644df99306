#include "lab/check_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "lab/error.h"
#include "lab/json.h"
#include "lab/names.h"
#include "lab/output.h"

namespace lab {
namespace {

Json ToJson(const CheckLine& line) {
  const Verdict& v = line.verdict;
  return {{"kind", "verdict"},
          {"verdict", v.status == Status::fail ? "fail" : NameOf(v.status)},
          {"row", line.row},
          {"contract", line.contract},
          {"target", line.target},
          {"kv", line.kv},
          {"case", line.case_name},
          {"compared", v.compared},
          {"err_over_tol", Number(v.worst)},
          {"output", v.output},
          {"token", v.token},
          {"channel", v.channel},
          {"got", Number(v.got)},
          {"expected", Number(v.expected)},
          {"method_error", Number(line.method_error)},
          {"nmse_passes", v.usual.nmse},
          {"cosine_passes", v.usual.cosine},
          {"allclose_passes", v.usual.allclose},
          {"why", v.why},
          {"blame", v.blame}};
}

CheckLine FromJson(const Json& j) {
  CheckLine line = {j.at("case"), j.at("row"), j.at("target"), j.at("kv"), j.at("contract"), {}, 0};
  line.method_error = ToNumber(j.at("method_error"));
  Verdict& v = line.verdict;
  const std::string status = j.at("verdict");
  for (const Status s : {Status::pass, Status::fail, Status::not_built, Status::not_run})
    if (status == (s == Status::fail ? "fail" : NameOf(s))) v.status = s;
  v.compared = j.at("compared");
  v.worst = ToNumber(j.at("err_over_tol"));
  v.output = j.at("output");
  v.token = j.at("token");
  v.channel = j.at("channel");
  v.got = ToNumber(j.at("got"));
  v.expected = ToNumber(j.at("expected"));
  v.usual = {j.at("nmse_passes"), j.at("cosine_passes"), j.at("allclose_passes")};
  v.why = j.at("why");
  v.blame = j.at("blame");
  return line;
}

std::string WorstElement(const Verdict& v) {
  return v.compared == 0 ? "" : fmt::format("{}[t{}, {}]", v.output, v.token, v.channel);
}

Table ToTable(const std::vector<CheckLine>& lines) {
  Table table({"verdict", "row", "target", "kv", "case", "err/tol", "worst", "got", "oracle",
               "method", "why"});
  for (const CheckLine& line : lines) {
    const Verdict& v = line.verdict;
    const bool ran = v.compared > 0;
    table.Add({std::string(NameOf(v.status)), line.row, line.target, line.kv, line.case_name,
               ran ? fmt::format("{:.3f}", v.worst) : "", WorstElement(v),
               ran ? fmt::format("{:.7g}", v.got) : "",
               ran ? fmt::format("{:.7g}", v.expected) : "",
               line.method_error > 0 ? fmt::format("{:.1e}", line.method_error) : "",
               v.blame.empty() ? v.why : fmt::format("{}; {}", v.why, v.blame)});
  }
  return table;
}

struct Totals {
  size_t passed = 0, failed = 0, not_built = 0, not_run = 0;
  uint64_t compared = 0;
  double worst_pass = 0;
};

Totals Sum(const std::vector<CheckLine>& lines) {
  size_t counts[4] = {};
  Totals totals;
  for (const CheckLine& line : lines) {
    ++counts[static_cast<size_t>(line.verdict.status)];
    totals.compared += line.verdict.compared;
    if (line.verdict.status == Status::pass)
      totals.worst_pass = std::max(totals.worst_pass, line.verdict.worst);
  }
  totals.passed = counts[0];
  totals.failed = counts[1];
  totals.not_built = counts[2];
  totals.not_run = counts[3];
  return totals;
}

}  // namespace

int ReportCheck(std::vector<CheckLine> lines, const std::vector<MadeBy>& made_by, Format format,
                bool worst_first) {
  if (worst_first)
    std::stable_sort(lines.begin(), lines.end(), [](const CheckLine& a, const CheckLine& b) {
      return a.verdict.worst > b.verdict.worst;
    });
  const Totals t = Sum(lines);
  if (format != Format::jsonl) PrintOut(ToTable(lines).To(format));
  if (format == Format::text) {
    PrintOut(
        fmt::format("\n{} passed, {} failed, {} not built, {} not run; {} elements compared, worst "
                    "pass {:.3f} of its tolerance\n",
                    t.passed, t.failed, t.not_built, t.not_run, t.compared, t.worst_pass));
  } else if (format == Format::jsonl) {
    std::string out;
    for (const CheckLine& line : lines) out += ToLine(ToJson(line));
    PrintOut(out + ToLine({{"kind", "summary"},
                           {"passed", t.passed},
                           {"failed", t.failed},
                           {"not_built", t.not_built},
                           {"not_run", t.not_run},
                           {"compared", t.compared},
                           {"worst_pass", t.worst_pass},
                           {"made_by", ToJson(made_by)}}));
  }
  if (t.failed > 0) return kNumericFailure;
  if (t.passed > 0) return kPass;
  PrintErr("lab: nothing was compared\n");
  return t.not_built + t.not_run > 0 ? kCannotRun : kNotComparable;
}

int ReportCandidate(const std::vector<CheckLine>& lines, Format format) {
  Table table({"verdict", "case", "contract", "kv", "err/tol", "worst", "got", "oracle", "why"});
  std::map<std::string, std::string> matches;  // case -> contracts that it passes under
  for (const CheckLine& line : lines) {
    const Verdict& v = line.verdict;
    std::string& names = matches[line.case_name];
    if (v.status == Status::pass)
      names += (names.empty() ? "" : ", ") + line.contract + (line.kv == "f16" ? " (KV f16)" : "");
    table.Add({std::string(NameOf(v.status)), line.case_name, line.contract, line.kv,
               fmt::format("{:.3f}", v.worst), WorstElement(v), fmt::format("{:.7g}", v.got),
               fmt::format("{:.7g}", v.expected),
               v.blame.empty() ? v.why : fmt::format("{}; {}", v.why, v.blame)});
  }
  if (format == Format::jsonl) {
    std::string out;
    for (const CheckLine& line : lines) out += ToLine(ToJson(line));
    PrintOut(out);
  } else {
    PrintOut(table.To(format));
  }
  bool all = true;
  std::string summary = "\n";
  for (const auto& [name, contracts] : matches) {
    all &= !contracts.empty();
    summary += contracts.empty() ? fmt::format("{}: FAIL under every contract tried\n", name)
                                 : fmt::format("{}: pass under {}\n", name, contracts);
  }
  if (format == Format::text) PrintOut(summary);
  return all ? kPass : kNumericFailure;
}

std::vector<CheckLine> CheckLinesOf(const Results& results) {
  std::vector<CheckLine> lines;
  try {
    for (const Json& record : results.records)
      if (record["kind"] == "verdict") lines.push_back(FromJson(record));
  } catch (const Json::exception& error) {
    Fail("{}: a verdict that is none of 'lab check --format jsonl': {}", results.source,
         Printable(error.what()));
  }
  return lines;
}

namespace {

MutantTotal TotalOf(const Mutant& mutant, std::span<const MutantLine> lines) {
  MutantTotal t;
  t.mutant = mutant.name;
  t.slip = mutant.slip;
  t.mistake = !mutant.correct;
  for (const MutantLine& line : lines) {
    t.compared += line.compared;
    t.failed += line.failed;
    t.nmse += line.nmse;
    t.cosine += line.cosine;
    t.allclose += line.allclose;
    const std::string op(NameOf(line.op));
    t.ops += (t.ops.empty() ? "" : " ") + op;
    if (line.AsItShould()) continue;
    t.good = false;
    if (!t.problem.empty()) t.problem += "; ";
    t.problem += line.compared == 0 ? "no case shows it"
                 : mutant.correct
                     ? line.wrong
                     : fmt::format("{}: survives in {}", op, fmt::join(line.survivors, ", "));
  }
  return t;
}

}  // namespace

std::string_view MutantTotal::verdict() const {
  if (!mistake) return good ? "passes" : "FALSE ALARM";
  return good ? "killed" : "SURVIVES";
}

std::vector<MutantTotal> SumMutants(const std::vector<MutantLine>& lines) {
  std::vector<MutantTotal> totals;
  for (size_t first = 0, end = 0; first < lines.size(); first = end) {
    while (end < lines.size() && lines[end].mutant == lines[first].mutant) ++end;
    totals.push_back(TotalOf(*lines[first].mutant, std::span(lines).subspan(first, end - first)));
  }
  return totals;
}

std::vector<MutantTotal> MutantTotalsOf(const Results& results) {
  std::vector<MutantTotal> totals;
  try {
    for (const Json& j : results.records) {
      if (j["kind"] != "mutant") continue;
      MutantTotal t = {j.at("mutant"),  j.at("slip"),   j.at("ops"),      j.at("problem"),
                       j.at("mistake"), j.at("good"),   j.at("compared"), j.at("failed"),
                       j.at("nmse"),    j.at("cosine"), j.at("allclose")};
      totals.push_back(std::move(t));
    }
  } catch (const Json::exception& error) {
    Fail("{}: a mutant that is none of 'lab check --mutants --format jsonl': {}", results.source,
         Printable(error.what()));
  }
  return totals;
}

namespace {

Json ToJson(const MutantTotal& t) {
  return {{"kind", "mutant"},       {"verdict", t.verdict()}, {"mutant", t.mutant},
          {"mistake", t.mistake},   {"good", t.good},         {"compared", t.compared},
          {"failed", t.failed},     {"nmse", t.nmse},         {"cosine", t.cosine},
          {"allclose", t.allclose}, {"slip", t.slip},         {"ops", t.ops},
          {"problem", t.problem}};
}

Table ToTable(const std::vector<MutantTotal>& totals) {
  Table table({"verdict", "mutant", "compared", "failed", "nmse", "cosine", "allclose", "slip",
               "ops", "problem"});
  for (const MutantTotal& t : totals)
    table.Add({std::string(t.verdict()), t.mutant, std::to_string(t.compared),
               std::to_string(t.failed), std::to_string(t.nmse), std::to_string(t.cosine),
               std::to_string(t.allclose), t.slip, t.ops, t.problem});
  return table;
}

}  // namespace

int ReportMutants(std::vector<MutantTotal> totals, const std::vector<MadeBy>& made_by,
                  Format format) {
  std::stable_partition(totals.begin(), totals.end(), [](const auto& t) { return !t.good; });
  size_t mistakes = 0, bad = 0, compared = 0;
  std::string records;
  for (const MutantTotal& t : totals) {
    mistakes += t.mistake;
    bad += !t.good;
    compared += t.compared;
    records += ToLine(ToJson(t));
  }
  if (format == Format::jsonl)
    PrintOut(records + ToLine({{"kind", "summary"},
                               {"mistakes", mistakes},
                               {"correct", totals.size() - mistakes},
                               {"not_as_they_should", bad},
                               {"compared", compared},
                               {"made_by", ToJson(made_by)}}));
  else
    PrintOut(ToTable(totals).To(format));
  if (format == Format::text)
    PrintOut(fmt::format(
        "\n{} mistakes and {} correct orders of summation; {} not as they should be; {} "
        "comparisons.\nfailed: by the judge. nmse, cosine, allclose: how many of the comparisons "
        "the criteria in common use fail.\n",
        mistakes, totals.size() - mistakes, bad, compared));
  if (totals.empty()) PrintErr("lab: nothing was compared\n");
  return bad > 0 ? kNumericFailure : totals.empty() ? kNotComparable : kPass;
}

namespace {

// What of several runs is there twice was not made by shards of one.
template <class Lines, class Key>
void RefuseTwice(const Lines& lines, Key key) {
  std::set<std::string> seen;
  for (const auto& line : lines)
    if (!seen.insert(key(line)).second)
      Fail("--merge: {} is in these files twice; give each run once", Printable(key(line), 200));
}

}  // namespace

int ReportMerged(const std::vector<std::string>& paths, Format format, bool worst_first) {
  std::vector<CheckLine> lines;
  std::vector<MutantTotal> mutants;
  std::vector<MadeBy> made_by;
  for (const Results& run : ReadResults(paths)) {
    const std::string_view kind = run.kind();
    if (kind != "verdict" && kind != "mutant")
      Fail("--merge {}: holds '{}' records; 'lab check' joins its own, 'lab report' all",
           run.source, Printable(kind));
    const auto own_lines = CheckLinesOf(run);
    const auto own_mutants = MutantTotalsOf(run);
    lines.insert(lines.end(), own_lines.begin(), own_lines.end());
    mutants.insert(mutants.end(), own_mutants.begin(), own_mutants.end());
    made_by.insert(made_by.end(), run.made_by.begin(), run.made_by.end());
  }
  if (!lines.empty() && !mutants.empty())
    Fail("--merge: verdicts and mutants in one report; merge them apart");
  if (!mutants.empty()) {
    RefuseTwice(mutants, [](const MutantTotal& t) { return t.mutant; });
    return ReportMutants(std::move(mutants), made_by, format);
  }
  RefuseTwice(lines, [](const CheckLine& l) {
    return fmt::format("{} {} {} on {}", l.row, l.target, l.kv, l.case_name);
  });
  return ReportCheck(std::move(lines), made_by, format, worst_first);
}

}  // namespace lab
