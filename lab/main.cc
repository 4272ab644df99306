#include <array>
#include <exception>
#include <new>

#include "lab/cli.h"
#include "lab/device.h"
#include "lab/error.h"
#include "lab/names.h"
#include "lab/output.h"
#include "lab/version.h"
#include "model/file_bytes.h"

namespace lab {
namespace {

constexpr std::array kVerbs = {
    Verb{"forward", "run the model: generate, trace the taps, dump tensors", CmdForward},
    Verb{"check", "judge every kernel row on captured inputs against the oracle", CmdCheck},
    Verb{"bisect", "find the first wrong step of a candidate's pass", CmdBisect},
    Verb{"capture", "take the inputs of a layer's ops from a run, as cases", CmdCapture},
    Verb{"bench", "time every kernel row on the shapes of a real model", CmdBench},
    Verb{"diff", "compare two runs tap by tap, or two weight files tensor by tensor", CmdDiff},
    Verb{"tokenize", "text to token ids and back", CmdTokenize},
    Verb{"inspect", "what a model file holds: metadata, tensors, types, bytes per token",
         CmdInspect},
    Verb{"list", "taps, kernels, devices of this build", CmdList},
    Verb{"synth", "write a synthetic model as GGUF", CmdSynth},
};

std::string Usage() {
  std::string text =
      "lab: a kernel lab with reference oracles for qwen2 models\n\nUsage: lab VERB [FLAGS]\n\n";
  for (const Verb& verb : kVerbs) text += fmt::format("  {:<10} {}\n", verb.name, verb.help);
  return text +
         "\n  lab VERB --help explains a verb; lab --version says what this binary is.\n\n"
         "Example: lab forward --trace --prompt \"What is 2+2?\"\n\n"
         "Exit codes: 0 pass, 1 numeric failure, 2 usage or unreadable input or unwritable "
         "output,\n"
         "  3 not comparable or nothing selected, 4 non-finite values, 5 slower than asked,\n"
         "  70 internal error, 125 cannot run here, 130 interrupted, 141 closed pipe\n";
}

int Dispatch(int argc, char** argv) {
  const std::string_view name = argc > 1 ? argv[1] : "--help";
  if (name == "help" && argc > 2) {
    char help[] = "--help";
    char* verb_help[] = {argv[0], argv[2], help, nullptr};
    return Dispatch(3, verb_help);
  }
  if (name == "--help" || name == "-h" || name == "help") {
    PrintOut(Usage());
    return argc > 1 ? kPass : kUsage;
  }
  if (name == "--version") {
    PrintOut(fmt::format(
        "lab {} (commit {})\ncompiler  {}\nhighway   {}, target {}\ncuda      {}\n", Version(),
        Commit(), Compiler(), HighwayVersion(), HighwayTarget(), CudaText()));
    return kPass;
  }
  std::vector<std::string_view> names;
  for (const Verb& verb : kVerbs) {
    if (verb.name == name) return verb.run(argc - 1, argv + 1);
    names.push_back(verb.name);
  }
  std::vector<std::string_view> all = names;
  all.insert(all.end(), {"--help", "--version"});
  Fail("unknown verb '{}'{}; known: {}", Printable(name), DidYouMean(name, all),
       fmt::join(names, ", "));
}

// As a new handler: a std::bad_alloc on a thread of the pool would end in std::terminate.
[[noreturn]] void OutOfMemory() {
  QuitNow(kCannotRun,
          {"out of memory; a smaller model, a shorter prompt or fewer tokens need less"});
}

}  // namespace
}  // namespace lab

int main(int argc, char** argv) {
  lab::KeepStandardStreams();
  lab::InstallSignalHandlers();
  lab::InstallMappingHandler();
  std::set_new_handler(lab::OutOfMemory);
  try {
    return lab::Dispatch(argc, argv);
  } catch (const lab::Error& error) {
    if (error.code() != lab::kClosedPipe) lab::PrintErr(fmt::format("lab: {}\n", error.what()));
    return error.code();
  } catch (const std::bad_alloc&) {
    lab::OutOfMemory();
  } catch (const std::exception& error) {
    lab::PrintErr(fmt::format("lab: internal error: {}\n", error.what()));
  }
  return lab::kInternal;
}
