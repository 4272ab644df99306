#pragma once
// lab check --forward: judges whole passes (lab/composed.h) and reports.
#include <CLI/CLI.hpp>
#include <string>

#include "lab/cli.h"
#include "lab/composed.h"
#include "lab/made_by.h"
#include "lab/prompt.h"

namespace lab {

/// The flags that `lab check` has for --forward alone.
struct ForwardFlags {
  bool on = false;
  Prompt prompt;
  std::string kv;
  size_t generate = 0;
};
/// Adds them, each refused without --forward; --forward refuses the flags that select single rows.
void AddForwardFlags(CLI::App& app, ForwardFlags& f);

/// What both kinds of check share, as given. Empty: the default.
struct SharedFlags {
  const std::string &model, &backend, &contract;
  int threads;
  Format format;
  bool worst;  ///< largest ratio first
  const std::vector<std::string>& use;
  int argc;  ///< as they came, for MadeBy
  char** argv;
};
/// Runs, prints the report and returns the exit code.
int CheckForward(const ForwardFlags& f, const SharedFlags& shared);

/// The report: the worst place of every contract and tap, the logits, the tokens, a summary.
/// `prompt_tokens`: how many of the ids are the prompt, at least 1.
std::string ComposedToText(const std::vector<ContractResult>& results, size_t prompt_tokens,
                           bool worst_first);
/// The same in full, one record a line: tap, logits, tokens, summary (notes/formats.md).
std::string ComposedToJsonl(const std::vector<ContractResult>& results, size_t prompt_tokens,
                            const MadeBy& made_by);
/// 4 when a candidate is not finite (and says where on standard error), 1 when a tap or token fails
/// or nothing was compared, else 0.
int ComposedExitCode(const std::vector<ContractResult>& results, size_t prompt_tokens);

}  // namespace lab
