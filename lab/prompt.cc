#include "lab/prompt.h"

#include "lab/cli.h"
#include "lab/error.h"

namespace lab {

std::vector<int32_t> PromptIds(const Prompt& prompt, const Qwen2& model,
                               const Tokenizer* tokenizer) {
  if (!prompt.tokens.empty()) return ParseIds(prompt.tokens, model.config.vocab);
  const std::string text = prompt.file.empty() ? prompt.text : ReadText(prompt.file);
  if (text.empty()) Fail("the prompt is empty; there is nothing to run");
  const std::string turn = prompt.chat ? ChatMl(text) : text;
  return tokenizer ? tokenizer->Encode(turn) : Tokenizer(*model.source).Encode(turn);
}

}  // namespace lab
