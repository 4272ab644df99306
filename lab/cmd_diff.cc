// lab diff: two weight files, or two runs (traces, dumps) of lab or of another program.
#include "lab/cli.h"
#include "lab/diff_report.h"
#include "lab/diff_runs.h"
#include "lab/error.h"
#include "lab/local_report.h"
#include "lab/output.h"
#include "lab/parallel.h"
#include "lab/run_record.h"
#include "lab/weight_diff.h"
#include "model/weight_file.h"

namespace lab {
namespace {

struct Flags {
  std::string a, b, local, names, model, format;
  Transforms how;
  bool explain = false;
  std::optional<double> min_cos;
  int threads = DefaultThreads();
};

constexpr const char* kOfRuns = "Two runs";
constexpr const char* kOfLocal = "One run, step by step";
constexpr const char* kOfBoth = "Runs";
constexpr const char* kOfWeights = "Two weight files";

bool ParseFlags(CLI::App& app, int argc, char** argv, Flags& f) {
  auto* a = app.add_option("A", f.a, "the file that is taken for right")->type_name("FILE");
  auto* b = app.add_option("B", f.b, "the file in question")->type_name("FILE");
  app.add_option(
         "--local", f.local,
         "instead of A and B: a dump of whole tensors, judged step by step: from its values "
         "at a step's\ninput the oracle of --model computes what should be at the output")
      ->type_name("DUMP")
      ->excludes(a, b)
      ->group(kOfLocal);
  app.add_option("--names", f.names,
                 "what the tensors of a safetensors dump are called, as TOML (notes/formats.md); "
                 "built in:\nlab's own names, HF transformers' modules, llama.cpp's tensors")
      ->type_name("F.toml")
      ->group(kOfBoth);
  app.add_flag(
         "--explain", f.explain,
         "look for what makes a difference vanish: another set of tokens, before or after the "
         "bias or\nRoPE, another std ... tried on the values of the run that has them, or of "
         "--model")
      ->group(kOfRuns);
  app.add_option("--model", f.model,
                 "the model of the runs: the tolerance is then computed, and each run is also "
                 "compared\nwith the oracle of its contract; with --local the default is the model "
                 "'lab forward' would take")
      ->type_name("FILE|SHAPE")
      ->group(kOfBoth);
  app.add_option("--only", f.how.only, "compare only the last token, or the one at a position")
      ->type_name("all|last|N")
      ->group(kOfRuns);
  app.add_flag("--pooled", f.how.pooled,
               "pool the tokens of the run that has them one by one, where the other has pooled "
               "figures")
      ->group(kOfRuns);
  app.add_flag("--across-phases", f.how.across_phases,
               "compare a token that one run prefilled with the same token decoded by the other")
      ->group(kOfRuns);
  app.add_flag("--convert-std", f.how.convert_std,
               "convert the std of the sample (n - 1) to that of the population (n)")
      ->group(kOfRuns);
  app.add_option("--min-cos", f.min_cos, "the cosine that every tensor must reach")
      ->type_name("X")
      ->check(CLI::Range(-1.0, 1.0))
      ->group(kOfWeights);
  AddThreads(app, f.threads);
  AddTableFormat(app, f.format);
  app.footer(
      "Example:\n  lab diff mine.jsonl theirs.jsonl --explain\n"
      "  lab diff --model model.gguf --local theirs.safetensors\n"
      "  lab diff model.gguf model.apr --min-cos 0.999");
  if (!ParseArgs(app, argc, argv)) return false;
  if (f.local.empty() && f.b.empty())
    Fail("{} is required: 'lab diff A B', or --local DUMP; 'lab diff --help' has examples",
         f.a.empty() ? "A" : "B");
  CheckThreads(f.threads);
  ParseTableFormat(f.format);
  return true;
}

// Options that say nothing about files of this kind would be ignored silently.
void RefuseGroup(const CLI::App& app, const char* group, const char* files) {
  for (const CLI::Option* option : app.get_options())
    if (option->get_group() == group && option->count() > 0)
      Fail("{}: means nothing for {}", option->get_name(), files);
}

NameMap NamesOf(const Flags& f) {
  return f.names.empty() ? NameMap::BuiltIn() : NameMap::Read(f.names);
}

int DiffLocal(const Flags& f) {
  const RunRecord run = ReadRun(f.local, NamesOf(f));
  const Qwen2 model = OpenModel(ResolveModel(f.model));
  LocalResult result;
  {
    const ProgressLine progress;
    result = JudgeLocally(model, run, f.threads, [&](std::string_view what) { progress(what); });
  }
  PrintOut(LocalTo(ParseTableFormat(f.format), run, result));
  return LocalExitCode(result);
}

int DiffRunFiles(const Flags& f) {
  const NameMap names = NamesOf(f);
  const RunRecord a = ReadRun(f.a, names), b = ReadRun(f.b, names);
  const DiffResult result = DiffRuns(a, b, {f.how, f.model, f.explain, f.threads});
  PrintOut(DiffTo(ParseTableFormat(f.format), result));
  return DiffExitCode(result);
}

}  // namespace

int CmdDiff(int argc, char** argv) {
  Flags f;
  CLI::App app(
      "Compares two runs tap by tap: traces (--trace) or dumps (--dump) of lab, or of another "
      "program.\nFirst whether they may be compared at all (exit 3 if not), then whether what "
      "differs means anything.\n"
      "Or one run (--local), step by step on its own values: which op of a program whose code "
      "nobody "
      "sees is\nthe first wrong one.\n"
      "Or two weight files (GGUF, APR, safetensors, synthetic shapes), tensor by tensor: exit 1 "
      "when one is\nmissing, reshaped, transposed, exchanged or damaged, or below --min-cos.",
      "lab diff");
  if (!ParseFlags(app, argc, argv, f)) return kPass;
  if (!f.local.empty()) {
    for (const char* group : {kOfRuns, kOfWeights}) RefuseGroup(app, group, "--local");
    return DiffLocal(f);
  }
  const bool weights_a = IsWeightFile(f.a), weights_b = IsWeightFile(f.b);
  if (const std::string& run = weights_a ? f.b : f.a; weights_a != weights_b && IsRunFile(run))
    Fail("{}: a weight file, but {} is a run; compare two of a kind", weights_a ? f.a : f.b, run);
  if (weights_a || weights_b) {
    for (const char* group : {kOfRuns, kOfBoth}) RefuseGroup(app, group, "two weight files");
    return DiffWeights({f.a, f.b, f.min_cos, f.threads, ParseTableFormat(f.format)});
  }
  RefuseGroup(app, kOfWeights, "two runs");
  return DiffRunFiles(f);
}

}  // namespace lab
