// lab capture: the inputs of one layer's ops, from a real run, as committed cases.
#include <sys/stat.h>

#include "lab/capture.h"
#include "lab/cli.h"
#include "lab/edge_cases.h"
#include "lab/error.h"
#include "lab/output.h"
#include "lab/parallel.h"
#include "lab/sha256.h"
#include "model/tokenizer.h"

namespace lab {
namespace {

int Write(const std::string& stem, const CaseFile& file) {
  WriteCaseFile(stem, file);
  fmt::print(stderr, "lab: {} cases in {}.toml and {}.safetensors\n", file.cases.size(), stem,
             stem);
  return kPass;
}

}  // namespace

int CmdCapture(int argc, char** argv) {
  std::string model_name, prompt = "What is 2+2?", prompt_file, tokens, out, only;
  size_t layer = 3, rows = 64, queries = 0;
  int threads = DefaultThreads();
  bool edges = false;
  CLI::App app(
      "Runs the oracle on a prompt and writes the inputs of every op of one layer: NAME.toml and "
      "NAME.safetensors.\n"
      "With --edges: the made-up edge cases instead (zeros, NaN, extreme scales, odd shapes...).",
      "lab capture");
  AddModel(app, model_name);
  app.add_option("--layer", layer, "which layer (default 3)")->type_name("L");
  auto* text = app.add_option("--prompt", prompt, "text to run (default \"What is 2+2?\")");
  auto* file = app.add_option("--prompt-file", prompt_file, "text from a file; - is standard input")
                   ->excludes(text);
  app.add_option("--tokens", tokens, "token ids instead of text")->excludes(text, file);
  app.add_option(
         "--rows", rows,
         "rows to keep of each matrix, spread evenly, with all columns; 0: all (default 64)")
      ->type_name("N");
  app.add_option("--queries", queries, "query tokens to keep for the attention; 0: all (default)")
      ->type_name("N");
  app.add_option("--ops", only, "only cases whose name or op matches one of these globs")
      ->type_name("GLOB,...");
  app.add_option("--threads", threads, "1 to 1024 (default: the cores of this machine)");
  auto* edges_flag = app.add_flag(
      "--edges", edges, "write the edge cases, which need no model; goes with no option but -o");
  for (CLI::Option* option : app.get_options())
    if (option != edges_flag && option != app.get_help_ptr()) edges_flag->excludes(option);
  app.add_option("-o,--output", out, "where to write, without ending")
      ->required()
      ->type_name("cases/NAME");
  app.footer(
      "Example:\n  lab capture --layer 3 --prompt \"What is 2+2?\" -o cases/layer3\n"
      "  lab capture --edges -o cases/edges");
  if (!ParseArgs(app, argc, argv)) return kPass;
  CheckThreads(threads);
  if (edges) return Write(out, EdgeCases());

  const Qwen2 model = OpenModel(ResolveModel(model_name));
  if (layer >= model.config.layers)
    Fail("--layer {}: the model has layers 0 to {}", layer, model.config.layers - 1);
  CaseFile cases;
  cases.model = model.name().substr(model.name().rfind('/') + 1);
  if (model.source->file().is_file())
    cases.sha256 = Sha256OfFile(model.name(), model.source->file().bytes());
  cases.layer = layer;
  if (tokens.empty()) {
    cases.prompt = prompt_file.empty() ? prompt : ReadText(prompt_file);
    cases.ids = Tokenizer(*model.source).Encode(cases.prompt);
  } else {
    cases.ids = ParseIds(tokens, model.config.vocab);
  }
  if (cases.ids.empty()) Fail("the prompt is empty; there is nothing to run");
  if (cases.ids.size() > model.config.context_length)
    Fail("{} tokens do not fit the context of {} of this model", cases.ids.size(),
         model.config.context_length);
  cases.cases = CaptureCases(model, layer, cases.ids, rows, queries, threads);
  const CaseFilter filter(only);
  std::erase_if(cases.cases, [&](const Case& c) { return !filter.Has(c); });
  if (cases.cases.empty())
    throw Error(kNotComparable,
                fmt::format("--ops {}: no case of this layer has such a name or op", only));
  return Write(out, cases);
}

}  // namespace lab
