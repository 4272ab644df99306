#pragma once
// What `lab report` shows, as a list of blocks that know nothing of formats of files. Nothing is
// judged here: every verdict and figure was computed by whoever made the results.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lab/diff_report.h"
#include "lab/results.h"
#include "lab/run_record.h"
#include "lab/table.h"

namespace lab {

enum class Tone { good, bad, neutral };

/// One line at the top.
struct Finding {
  Tone tone;
  std::string text, detail;
};

/// One element that somebody should look at.
struct Card {
  Tone tone;
  std::string place, figure, meaning;  ///< "L03.ffn_up token 0", "353", "x the tolerance"
  std::vector<std::pair<std::string, std::string>> facts;
};

/// How a figure becomes a colour. tolerance: logarithmic up to 1, and beyond it another hue.
/// magnitude: logarithmic between the ends of the data.
enum class Scale { tolerance, magnitude };

struct Cell {
  std::vector<double> figures;  ///< the first is the colour; as HeatMap::figures names them
  bool marked = false;          ///< massive, wrong: a sign that does not rest on colour
  std::string note;             ///< more to say of it
};

/// A map of layers by taps or steps, and of what is outside the layers.
struct HeatMap {
  std::string title, note, mark;  ///< mark: what a marked cell is
  Scale scale;
  std::vector<std::string> figures;  ///< names of what a cell holds, with their units
  std::vector<std::string> rows, columns, outside;
  /// One view of the whole map: all tokens, or one of them.
  struct Frame {
    std::string name;
    std::vector<std::optional<Cell>> cells;  ///< row by row, then those outside
  };
  std::vector<Frame> frames;

  std::string NameOfCell(size_t index) const;  ///< "L03.ffn_up", "lm_head"
};

/// Lengths with a label, on one axis from 0 to `end`.
struct Bars {
  struct Bar {
    std::string label;
    double value;
    std::string text;
    Tone tone;
  };
  std::string title, note, unit;
  double end;
  std::vector<Bar> bars;
};

struct NamedTable {
  std::string title, note;
  Table table;
};

struct Report {
  std::string title;
  std::vector<Finding> findings;
  std::vector<Card> cards;
  std::vector<HeatMap> maps;
  std::vector<Bars> bars;
  std::vector<NamedTable> tables;
  std::vector<NamedTable> sources;  ///< who made what is shown
};

/// The inputs of a report, each in the form of its reader.
struct ReportInputs {
  std::vector<RunRecord> runs;
  std::vector<Results> results;
  std::vector<std::pair<std::string, Json>> benchmarks;           ///< path, Google Benchmark's JSON
  std::vector<std::pair<std::string, std::vector<Json>>> passes;  ///< path, `lab bench --forward`
};
/// Reads traces, dumps, JSON lines of `lab check`, `lab bisect` and `lab bench --forward`, and what
/// --benchmark_out wrote. Throws Error that says which file is none of them.
ReportInputs ReadReportInputs(const std::vector<std::string>& paths);

/// `diff`: of the first two runs, if there are two.
Report MakeReport(const ReportInputs& inputs, const std::optional<DiffResult>& diff);

// Parts of MakeReport, one file each.
void AddRuns(const std::vector<RunRecord>& runs, Report& report);  // report_runs.cc
void AddDiff(const DiffResult& diff, Report& report);              // report_runs.cc
void AddResults(const Results& results, Report& report);           // report_results.cc
// Both in report_bench.cc.
void AddBenchmarks(const std::string& path, const Json& json, Report& report);
void AddPasses(const std::string& path, const std::vector<Json>& rows, Report& report);

/// Four digits, or "-" for what is not known (NaN).
std::string FigureText(double x);

/// One page that needs nothing else, for screens, phones and paper. All text is escaped.
std::string ReportToHtml(const Report& report);
/// Headings, findings and tables, for a pull request.
std::string ReportToMarkdown(const Report& report);

}  // namespace lab
