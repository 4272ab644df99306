// lab diff: two weight files.
#include "lab/cli.h"
#include "lab/error.h"
#include "lab/parallel.h"
#include "lab/weight_diff.h"

namespace lab {

int CmdDiff(int argc, char** argv) {
  WeightDiffOptions options;
  options.threads = DefaultThreads();
  std::string format;
  CLI::App app(
      "Compares two weight files (GGUF, APR, safetensors, or synthetic shapes) tensor by tensor.\n"
      "Exit 1 when one is missing, reshaped, transposed, exchanged or damaged, or below --min-cos.",
      "lab diff");
  app.add_option("A", options.a, "the file that is taken for right")->required()->type_name("FILE");
  app.add_option("B", options.b, "the file in question")->required()->type_name("FILE");
  app.add_option("--min-cos", options.min_cos, "the cosine that every tensor must reach")
      ->type_name("X")
      ->check(CLI::Range(-1.0, 1.0));
  app.add_option("--threads", options.threads, "1 to 1024 (default: the cores of this machine)");
  AddTableFormat(app, format);
  app.footer("Example:\n  lab diff model.gguf model.apr --min-cos 0.999");
  if (!ParseArgs(app, argc, argv)) return kPass;
  CheckThreads(options.threads);
  options.format = ParseTableFormat(format);
  return DiffWeights(options);
}

}  // namespace lab
