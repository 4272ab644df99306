#include "lab/prompt.h"

#include "lab/cli.h"
#include "lab/error.h"

namespace lab {

std::vector<CLI::Option*> AddPrompt(CLI::App& app, Prompt& prompt) {
  auto* text = app.add_option("--prompt", prompt.text, "text to run (default \"What is 2+2?\")");
  auto* file = app.add_option("--prompt-file", prompt.file, "text from a file; - is standard input")
                   ->type_name("FILE")
                   ->excludes(text);
  auto* tokens =
      app.add_option("--tokens", prompt.tokens, "token ids instead of text: 3838,374,220")
          ->excludes(text, file);
  return {text, file, tokens};
}

std::vector<int32_t> PromptIds(const Prompt& prompt, const Qwen2& model,
                               const Tokenizer* tokenizer) {
  if (!prompt.tokens.empty()) return ParseIds(prompt.tokens, model.config.vocab);
  const std::string text = prompt.file.empty() ? prompt.text : ReadText(prompt.file);
  if (text.empty()) Fail("the prompt is empty; there is nothing to run");
  const std::string turn = prompt.chat ? ChatMl(text) : text;
  return tokenizer ? tokenizer->Encode(turn) : Tokenizer(*model.source).Encode(turn);
}

}  // namespace lab
