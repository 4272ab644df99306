#include "lab/check_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "lab/cli.h"
#include "lab/error.h"
#include "lab/json.h"
#include "lab/names.h"
#include "lab/output.h"

namespace lab {
namespace {

double ToNumber(const Json& value) {
  if (value.is_number()) return value.get<double>();
  const auto text = value.get<std::string>();
  if (text == "inf") return std::numeric_limits<double>::infinity();
  if (text == "-inf") return -std::numeric_limits<double>::infinity();
  return std::numeric_limits<double>::quiet_NaN();
}

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

int ReportCheck(std::vector<CheckLine> lines, Format format, bool worst_first) {
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
                           {"worst_pass", t.worst_pass}}));
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

std::vector<CheckLine> ReadCheckLines(const std::vector<std::string>& paths) {
  std::vector<CheckLine> lines;
  for (const std::string& path : paths) {
    const std::string text = ReadText(path);
    size_t number = 0;
    for (size_t at = 0; at < text.size(); ++number) {
      const size_t end = std::min(text.find('\n', at), text.size());
      const std::string_view line = std::string_view(text).substr(at, end - at);
      at = end + 1;
      if (line.empty()) continue;
      try {
        const Json record = Json::parse(line);
        if (record.at("kind") == "verdict") lines.push_back(FromJson(record));
      } catch (const nlohmann::json::exception& error) {
        Fail("{}: line {}: not a record of 'lab check --format jsonl': {}", path, number + 1,
             Printable(error.what()));
      }
    }
  }
  return lines;
}

namespace {

// The lines of one mutant together.
struct MutantTotals {
  const Mutant* mutant;
  size_t compared = 0, failed = 0, nmse = 0, cosine = 0, allclose = 0;
  bool good = true;
  std::string ops = {}, problem = {};

  void Add(const MutantLine& line) {
    compared += line.compared;
    failed += line.failed;
    nmse += line.nmse;
    cosine += line.cosine;
    allclose += line.allclose;
    const std::string op(NameOf(line.op));
    ops += (ops.empty() ? "" : " ") + op;
    if (line.AsItShould()) return;
    good = false;
    if (!problem.empty()) problem += "; ";
    problem += line.compared == 0 ? "no case shows it"
               : mutant->correct
                   ? line.wrong
                   : fmt::format("{}: survives in {}", op, fmt::join(line.survivors, ", "));
  }
  std::string_view verdict() const {
    if (mutant->correct) return good ? "passes" : "FALSE ALARM";
    return good ? "killed" : "SURVIVES";
  }
};

}  // namespace

int ReportMutants(const std::vector<MutantLine>& lines, Format format) {
  std::vector<MutantTotals> totals;
  for (const MutantLine& line : lines) {
    if (totals.empty() || totals.back().mutant != line.mutant) totals.push_back({line.mutant});
    totals.back().Add(line);
  }
  std::stable_partition(totals.begin(), totals.end(), [](const auto& t) { return !t.good; });
  Table table({"verdict", "mutant", "compared", "failed", "nmse", "cosine", "allclose", "slip",
               "ops", "problem"});
  size_t mistakes = 0, bad = 0, compared = 0;
  for (const MutantTotals& t : totals) {
    mistakes += !t.mutant->correct;
    bad += !t.good;
    compared += t.compared;
    table.Add({std::string(t.verdict()), std::string(t.mutant->name), std::to_string(t.compared),
               std::to_string(t.failed), std::to_string(t.nmse), std::to_string(t.cosine),
               std::to_string(t.allclose), std::string(t.mutant->slip), t.ops, t.problem});
  }
  PrintOut(table.To(format));
  if (format == Format::text)
    PrintOut(fmt::format(
        "\n{} mistakes and {} correct orders of summation; {} not as they should be; {} "
        "comparisons.\nfailed: by the judge. nmse, cosine, allclose: how many of the comparisons "
        "the criteria in common use fail.\n",
        mistakes, totals.size() - mistakes, bad, compared));
  if (lines.empty()) PrintErr("lab: nothing was compared\n");
  return bad > 0 ? kNumericFailure : lines.empty() ? kNotComparable : kPass;
}

}  // namespace lab
