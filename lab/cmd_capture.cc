// lab capture: the inputs of one layer's ops, from a real run, as cases to commit or to export.
#include "lab/capture.h"
#include "lab/cli.h"
#include "lab/edge_cases.h"
#include "lab/error.h"
#include "lab/export.h"
#include "lab/output.h"
#include "lab/parallel.h"
#include "lab/prompt.h"
#include "lab/sha256.h"

namespace lab {
namespace {

struct Flags {
  std::string model, out, ops, exports, from;
  Prompt prompt;
  size_t layer = 3, rows = 64, queries = 0;
  int threads = DefaultThreads();
  bool edges = false;
};

bool ParseFlags(int argc, char** argv, Flags& f) {
  CLI::App app(
      "Runs the oracle on a prompt and writes the inputs of every op of one layer: NAME.toml and "
      "NAME.safetensors\n"
      "for 'lab check', or with --export as plain arrays for kernels in other programs. With "
      "--edges: "
      "the made-up edge\ncases instead (zeros, NaN, extreme scales, odd shapes...).",
      "lab capture");
  AddModel(app, f.model);
  app.add_option("--layer", f.layer, "which layer (default 3)")->type_name("L")->check(NotNegative);
  const std::vector<CLI::Option*> prompt = AddPrompt(app, f.prompt);
  app.add_option(
         "--rows", f.rows,
         "rows to keep of each matrix, spread evenly, with all columns; 0: all (default 64)")
      ->type_name("N")
      ->check(NotNegative);
  app.add_option("--queries", f.queries, "query tokens to keep for the attention; 0: all (default)")
      ->type_name("N")
      ->check(NotNegative);
  app.add_option("--ops", f.ops, "only cases whose name or op matches one of these globs")
      ->type_name("GLOB,...");
  AddThreads(app, f.threads);
  auto* edges = app.add_flag(
      "--edges", f.edges, "write the edge cases, which need no model; goes with no option but -o");
  for (CLI::Option* option : app.get_options())
    if (option != edges && option != app.get_help_ptr()) edges->excludes(option);
  app.add_option("-o,--output", f.out, "where to write, without ending")->type_name("cases/NAME");
  app.add_option("--export", f.exports,
                 "write each case as .npy files, raw blocks and a README, for kernels elsewhere")
      ->type_name("DIR");
  auto* from =
      app.add_option("--from", f.from, "with --export: cases captured before, from this folder")
          ->type_name("DIR")
          ->excludes(edges);
  for (CLI::Option* option : prompt) from->excludes(option);
  app.footer(
      "Example:\n"
      "  lab capture --layer 3 --prompt \"What is 2+2?\" -o cases/layer3\n"
      "  lab capture --edges -o cases/edges\n"
      "  lab capture --from cases --ops L03.gate_up --export /tmp/gate_up");
  if (!ParseArgs(app, argc, argv)) return false;
  CheckThreads(f.threads);
  if (f.out.empty() && f.exports.empty()) Fail("name what to write: -o cases/NAME or --export DIR");
  if (!f.from.empty() && !f.out.empty()) Fail("-o: --from reads cases that are written already");
  return true;
}

CaseFile CaptureFromModel(const Flags& f) {
  const Qwen2 model = OpenModel(ResolveModel(f.model));
  if (f.layer >= model.config.layers)
    Fail("--layer {}: the model has layers 0 to {}", f.layer, model.config.layers - 1);
  CaseFile cases;
  cases.model = model.name().substr(model.name().rfind('/') + 1);
  cases.sha256 = Sha256OfFile(model.source->file());
  cases.layer = f.layer;
  Prompt prompt = f.prompt;
  if (!prompt.file.empty()) {
    prompt.text = ReadText(prompt.file);
    prompt.file.clear();
  }
  if (prompt.tokens.empty()) cases.prompt = prompt.text;
  cases.ids = PromptIds(prompt, model);
  if (cases.ids.size() > model.config.context_length)
    Fail("{} tokens do not fit the context of {} of this model", cases.ids.size(),
         model.config.context_length);
  cases.cases = CaptureCases(model, f.layer, cases.ids, f.rows, f.queries, f.threads);
  return cases;
}

}  // namespace

int CmdCapture(int argc, char** argv) {
  Flags f;
  if (!ParseFlags(argc, argv, f)) return kPass;
  if (!f.out.empty()) CheckCaseFileWritable(f.out);
  if (!f.exports.empty()) CheckExportFolder(f.exports);
  CaseFile cases;
  if (f.edges)
    cases = EdgeCases();
  else if (f.from.empty())
    cases = CaptureFromModel(f);
  else
    cases.cases = ReadCases(f.from);
  ChooseCases(cases.cases, f.ops, "--ops");
  if (!f.exports.empty()) {
    for (const Case& c : cases.cases) ExportCase(c, f.exports);
    PrintErr(fmt::format("lab: {} in {}\n", CountOf(cases.cases.size(), "case"), f.exports));
  }
  if (!f.out.empty()) {
    WriteCaseFile(f.out, cases);
    PrintErr(fmt::format("lab: {} in {}.toml and {}.safetensors\n",
                         CountOf(cases.cases.size(), "case"), f.out, f.out));
  }
  return kPass;
}

}  // namespace lab
