#include "lab/report.h"

#include <algorithm>

#include "lab/cli.h"
#include "lab/error.h"

namespace lab {
namespace {

constexpr std::string_view kReads =
    "it reads traces and dumps ('lab forward', llama.cpp, apr), JSON lines of 'lab check', 'lab "
    "bisect' and 'lab bench --forward', and what 'lab bench --benchmark_out=F' writes";

// `lab bench --forward --format jsonl`: the rows of its table.
std::optional<std::vector<Json>> AsPasses(std::string_view text) {
  std::vector<Json> rows;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    Json row = Json::parse(text.substr(at, end - at), nullptr, /*allow_exceptions=*/false);
    if (!row.is_object() || !row.contains("run") || !row.contains("tok/s")) return std::nullopt;
    rows.push_back(std::move(row));
    at = end + 1;
  }
  if (rows.empty()) return std::nullopt;
  return rows;
}

// By what is in them, worst first.
bool Before(const Finding& a, const Finding& b) {
  return a.tone == Tone::bad && b.tone != Tone::bad;
}

}  // namespace

std::string HeatMap::NameOfCell(size_t index) const {
  const size_t grid = rows.size() * columns.size();
  if (index >= grid) return outside.at(index - grid);
  return rows[index / columns.size()] + "." + columns[index % columns.size()];
}

ReportInputs ReadReportInputs(const std::vector<std::string>& paths) {
  ReportInputs inputs;
  std::vector<std::string> results;
  for (const std::string& path : paths) {
    if (IsRunFile(path)) {
      inputs.runs.push_back(ReadRun(path));
      continue;
    }
    const std::string text = ReadText(path);
    if (IsResults(text)) {
      results.push_back(path);
    } else if (auto passes = AsPasses(text)) {
      inputs.passes.emplace_back(path, std::move(*passes));
    } else {
      Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
      if (!json.is_object() || !json.contains("benchmarks") || !json["benchmarks"].is_array())
        Fail("{}: nothing that lab report knows; {}", path, kReads);
      inputs.benchmarks.emplace_back(path, std::move(json));
    }
  }
  inputs.results = ReadResults(results);
  return inputs;
}

std::string FigureText(double x) {
  return std::isnan(x) ? "-" : fmt::format("{:.4g}", x);
}

Report MakeReport(const ReportInputs& inputs, const std::optional<DiffResult>& diff) {
  Report report;
  if (diff) AddDiff(*diff, report);
  for (const Results& results : inputs.results) AddResults(results, report);
  AddRuns(inputs.runs, report);
  for (const auto& [path, json] : inputs.benchmarks) AddBenchmarks(path, json, report);
  for (const auto& [path, rows] : inputs.passes) AddPasses(path, rows, report);
  std::stable_sort(report.findings.begin(), report.findings.end(), Before);
  std::stable_sort(report.cards.begin(), report.cards.end(), [](const Card& a, const Card& b) {
    return a.tone == Tone::bad && b.tone != Tone::bad;
  });
  if (report.title.empty()) report.title = "lab report";
  return report;
}

}  // namespace lab
