// The one table of verbs, and what lab --help and the man page say of them all.
#include "lab/cli.h"

namespace lab {
namespace {

constexpr Verb kVerbs[] = {
    {"forward", "run the model: generate, trace the taps, dump tensors", CmdForward},
    {"check", "judge every kernel row on captured inputs against the oracle", CmdCheck},
    {"bisect", "find the first wrong step of a candidate's pass", CmdBisect},
    {"capture", "take the inputs of a layer's ops from a run, as cases", CmdCapture},
    {"bench", "time every kernel row on the shapes of a real model", CmdBench},
    {"diff", "compare two runs tap by tap, or two weight files tensor by tensor", CmdDiff},
    {"report", "traces and results on one page, to look at or to send", CmdReport},
    {"tokenize", "text to token ids and back", CmdTokenize},
    {"inspect", "what a model file holds: metadata, tensors, types, bytes per token", CmdInspect},
    {"list", "taps, kernels, devices of this build", CmdList},
    {"synth", "write a synthetic model as GGUF", CmdSynth},
    {"docs", "the man page, and completion for bash and zsh", CmdDocs},
};

constexpr ExitMeaning kExitMeanings[] = {
    {kPass, "pass"},
    {kNumericFailure, "numeric failure"},
    {kUsage, "usage or unreadable input or unwritable output"},
    {kNotComparable, "not comparable or nothing selected"},
    {kNonFinite, "non-finite values"},
    {kTooSlow, "slower than asked"},
    {kInternal, "internal error"},
    {kCannotRun, "cannot run here"},
    {kInterrupted, "interrupted"},
    {kClosedPipe, "closed pipe"},
};

// Comma-separated, in lines of at most 90 columns.
std::string ExitCodes() {
  std::string text = "Exit codes:", line;
  for (const ExitMeaning& e : kExitMeanings) {
    const std::string item = fmt::format(" {} {},", static_cast<int>(e.code), e.meaning);
    if (text.size() - text.rfind('\n') - 1 + item.size() > 90) text += "\n ";
    text += item;
  }
  text.back() = '\n';
  return text;
}

}  // namespace

std::span<const Verb> Verbs() {
  return kVerbs;
}

std::span<const ExitMeaning> ExitMeanings() {
  return kExitMeanings;
}

std::string Usage() {
  std::string text = fmt::format("lab: {}\n\nUsage: lab VERB [FLAGS]\n\n", kTagline);
  for (const Verb& verb : kVerbs) text += fmt::format("  {:<10} {}\n", verb.name, verb.help);
  return text +
         "\n  lab VERB --help explains a verb; lab --version says what this binary is.\n\n"
         "Example: lab forward --trace --prompt \"What is 2+2?\"\n\n" +
         ExitCodes();
}

}  // namespace lab
