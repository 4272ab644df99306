#pragma once
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "model/qwen2.h"
#include "model/tokenizer.h"

namespace lab {

/// What to run, as --prompt, --prompt-file, --tokens and --chat say it.
struct Prompt {
  std::string text = "What is 2+2?";
  std::string file;    ///< if not empty, its content is the text; - is standard input
  std::string tokens;  ///< if not empty, ids that replace the text
  bool chat = false;   ///< the text is a user turn of ChatML
};

/// Adds --prompt, --prompt-file and --tokens, of which one may be given, and returns them.
std::vector<CLI::Option*> AddPrompt(CLI::App& app, Prompt& prompt);
/// Its token ids. `tokenizer`: of the model, or null to have one made where it is needed. Throws
/// Error for an empty prompt and for ids outside the vocabulary.
std::vector<int32_t> PromptIds(const Prompt& prompt, const Qwen2& model,
                               const Tokenizer* tokenizer = nullptr);

}  // namespace lab
