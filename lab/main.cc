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
  for (const Verb& verb : Verbs()) {
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
