// lab report: traces and results as one page, or as Markdown.
#include "lab/cli.h"
#include "lab/diff_runs.h"
#include "lab/error.h"
#include "lab/names.h"
#include "lab/output.h"
#include "lab/parallel.h"
#include "lab/report.h"

namespace lab {

int CmdReport(int argc, char** argv) {
  std::vector<std::string> files;
  std::string out = "-", format, model;
  int threads = DefaultThreads();
  CLI::App app(
      "Shows traces and results on one page that needs no network: what was found, the worst "
      "elements, maps of\n"
      "layers by taps (std with the massive tokens, errors, two runs apart), times, and where it "
      "all comes from.\n"
      "It judges nothing: verdicts are those of 'lab diff' (of two traces), 'lab check', 'lab "
      "bisect'.",
      "lab report");
  app.add_option("FILE", files,
                 "traces and dumps (ours, llama.cpp's, apr's); JSON lines of 'lab check', 'lab "
                 "bisect' and\n'lab bench --forward' (--format jsonl; the parts of a --shard are "
                 "joined);\nwhat 'lab bench --benchmark_out=F' wrote")
      ->required();
  app.add_option("-o,--output", out, "where the page goes (default: standard output)")
      ->type_name("R.html");
  app.add_option("--format", format, "html (default), or md: tables for a pull request")
      ->type_name("html|md");
  app.add_option("--model", model, "of two traces: tolerances are then computed, as in 'lab diff'")
      ->type_name("FILE|SHAPE");
  AddThreads(app, threads);
  app.footer(
      "Example:\n  lab report mine.jsonl theirs.jsonl -o report.html\n"
      "  lab bisect --contract q8 --format jsonl > b.jsonl; lab report b.jsonl --format md");
  if (!ParseArgs(app, argc, argv)) return kPass;
  CheckThreads(threads);
  constexpr std::string_view kFormats[] = {"html", "md"};
  const bool md = !format.empty() && IndexOfName(kFormats, format, "--format") == 1;
  OutputFile file(out);
  const ReportInputs inputs = ReadReportInputs(files);
  if (inputs.runs.size() > 2) Fail("{} traces; a report compares two", inputs.runs.size());
  if (!model.empty() && inputs.runs.size() != 2)
    Fail("--model: it is for the tolerances of two traces, there are {}", inputs.runs.size());
  std::optional<DiffResult> diff;
  if (inputs.runs.size() == 2) {
    DiffOptions options;
    options.model = model;
    options.threads = threads;
    diff = DiffRuns(inputs.runs[0], inputs.runs[1], options);
  }
  const Report report = MakeReport(inputs, diff);
  file.Write(md ? ReportToMarkdown(report) : ReportToHtml(report));
  file.Commit();
  return kPass;
}

}  // namespace lab
