// lab tokenize: text to ids and back.
#include <istream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "lab/cli.h"
#include "lab/error.h"
#include "lab/names.h"
#include "lab/output.h"
#include "model/qwen2.h"
#include "model/tokenizer.h"

namespace lab {
namespace {

using Json = nlohmann::ordered_json;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

// {"text": ...} to {"tokens": [...]} or the reverse, a line each.
std::string ConvertLine(const Tokenizer& tokenizer, std::string_view line, size_t number,
                        bool decode, const std::string& file) {
  const Json in = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  const char* key = decode ? "tokens" : "text";
  if (!in.is_object() || !in.contains(key))
    Fail("{}: line {}: not a JSON object with \"{}\"", file, number, key);
  if (!decode) {
    if (!in["text"].is_string()) Fail("{}: line {}: \"text\" is not a string", file, number);
    return Dump({{"tokens", tokenizer.Encode(in["text"].get<std::string>())}});
  }
  Utf8Stream stream;
  std::string text;
  if (!in["tokens"].is_array()) Fail("{}: line {}: \"tokens\" is not a list", file, number);
  for (const Json& id : in["tokens"]) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= tokenizer.vocab())
      Fail("{}: line {}: {} is no token of this model", file, number, Printable(id.dump()));
    text += stream.Push(tokenizer.Decode(id.get<int32_t>()));
  }
  return Dump({{"text", text + stream.Finish()}});
}

std::string DecodeIds(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  Utf8Stream stream;
  std::string text;
  for (const int32_t id : ids) text += stream.Push(tokenizer.Decode(id));
  return text + stream.Finish();
}

}  // namespace

int CmdTokenize(int argc, char** argv) {
  std::string model_name, prompt, prompt_file, jsonl, tokens, format;
  bool decode = false, chat = false;
  CLI::App app("Text to token ids, or with --decode ids to text.", "lab tokenize");
  AddModel(app, model_name);
  auto* prompt_option = app.add_option("--prompt", prompt, "text");
  auto* file_option =
      app.add_option("--prompt-file", prompt_file, "text from a file; - is standard input")
          ->type_name("FILE");
  auto* jsonl_option =
      app.add_option("--jsonl", jsonl,
                     "a file of {\"text\": ...} lines; {\"tokens\": [...]} lines come out")
          ->type_name("FILE");
  auto* tokens_option =
      app.add_option("--tokens", tokens, "with --decode: ids such as 3838,374,220");
  app.add_flag("--decode", decode, "from ids to text (--tokens, or --jsonl with \"tokens\" lines)");
  app.add_flag("--chat", chat, "wrap the text as a user turn in ChatML");
  AddFormat(app, format);
  app.footer(
      "Example:\n  lab tokenize --prompt \"What is 2+2?\"\n  lab tokenize --decode --tokens "
      "3838,374,220");
  if (!ParseArgs(app, argc, argv)) return kPass;
  const int sources = (prompt_option->count() > 0) + (file_option->count() > 0) +
                      (jsonl_option->count() > 0) + (tokens_option->count() > 0);
  if (sources != 1)
    Fail(
        "give one of --prompt, --prompt-file, --jsonl, --tokens; see 'lab tokenize "
        "--help'");
  if (decode != (tokens_option->count() > 0) && jsonl.empty())
    Fail("--decode goes with --tokens or --jsonl");

  const bool json = ParseFormat(format) == Format::jsonl;
  const WeightFile file = ReadWeightFile(OpenModelBytes(ResolveModel(model_name)));
  const Tokenizer tokenizer(file);
  if (!jsonl.empty()) {
    std::istringstream lines(ReadText(jsonl));
    std::string line;
    for (size_t number = 1; std::getline(lines, line); ++number)
      if (!line.empty()) PrintOut(ConvertLine(tokenizer, line, number, decode, jsonl));
    return kPass;
  }
  if (decode) {
    const std::string text = DecodeIds(tokenizer, ParseIds(tokens, tokenizer.vocab()));
    PrintOut(json ? Dump({{"text", text}}) : text + "\n");
    return kPass;
  }
  if (!prompt_file.empty()) prompt = ReadText(prompt_file);
  const std::vector<int32_t> ids = tokenizer.Encode(chat ? ChatMl(prompt) : prompt);
  if (json) {
    PrintOut(Dump({{"tokens", ids}}));
    return kPass;
  }
  std::string out = fmt::format("{}: {}\n", CountOf(ids.size(), "token"), fmt::join(ids, ","));
  for (const int32_t id : ids)
    out += fmt::format("{:>8}  '{}'\n", id, Printable(tokenizer.Decode(id)));
  PrintOut(out);
  return kPass;
}

}  // namespace lab
