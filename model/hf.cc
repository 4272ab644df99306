#include "model/hf.h"

#include <sys/stat.h>

#include <algorithm>

#include "lab/error.h"
#include "lab/names.h"
#include "lab/safetensors.h"
#include "model/hf_names.h"
#include "model/json_metadata.h"

namespace lab {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kConfig = "config.json:", kTokenizer = "tokenizer.json:";

void AddTensors(const SafetensorsHeader& header, WeightFileParts& parts) {
  for (const SafetensorsEntry& e : header.entries) {
    WeightTensor t;
    parts.owners.push_back(std::make_shared<std::string>(e.name));
    t.spelling = *static_cast<const std::string*>(parts.owners.back().get());
    t.name = GgufTensorName(t.spelling);
    std::vector<uint64_t> dims(e.shape.rbegin(), e.shape.rend());  // the row length first
    if (dims.empty()) dims = {1};
    if (const std::string problem = t.SetShape(dims.size(), dims.data()); !problem.empty())
      Fail("{}: tensor '{}' {}", parts.file.name(), Printable(e.name), problem);
    for (const BlockTypeInfo& block : kBlockTypes)
      if (block.elements == 1 && block.name == e.dtype)
        t.SetGgufType(static_cast<uint32_t>(block.type));
    t.type = e.dtype;
    t.offset = static_cast<uint64_t>(e.data.data() - parts.file.bytes().data());
    t.bytes = e.data.size();
    parts.tensors.push_back(std::move(t));
  }
}

// The JSON object in file `name` beside the weights, if there is one.
std::optional<Json> ReadBeside(const FileBytes& weights, std::string_view name) {
  if (!weights.is_file()) return std::nullopt;
  const std::string path =
      weights.name().substr(0, weights.name().rfind('/') + 1) + std::string(name);
  struct stat st;
  if (stat(path.c_str(), &st) != 0) return std::nullopt;
  const FileBytes file = FileBytes::Map(path);
  return ParseJsonObject(path,
                         {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()});
}

// Texts such as "256" and "1e-06" become numbers.
Json MetadataOf(const SafetensorsHeader& header) {
  Json metadata = Json::object();
  for (const auto& [key, text] : header.metadata) {
    const Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    metadata[key] = value.is_number() || value.is_boolean() ? value : Json(text);
  }
  return metadata;
}

// --- tokenizer.json (https://huggingface.co/docs/tokenizers), of which a BPE model and the added
// tokens are read. Normaliser and pattern are those of qwen2 (model/tokenizer.h). ---

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<int64_t> types;  // as GGUF numbers them
};
constexpr int64_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;

// Refuses ids far beyond the count of tokens: they would make a long list of nothing.
void Put(Vocabulary& v, const Json& id, const std::string& token, int64_t type, size_t limit) {
  if (!id.is_number_unsigned() || id.get<uint64_t>() >= limit)
    Fail("tokenizer.json: token '{}' has the id {}, which is none of {} tokens", Printable(token),
         Printable(id.dump()), limit);
  const auto i = id.get<size_t>();
  if (i >= v.tokens.size()) v.tokens.resize(i + 1), v.types.resize(i + 1, kUnused);
  v.tokens[i] = token;
  v.types[i] = type;
}

Vocabulary ReadVocabulary(const Json& json, size_t rows) {
  const Json &vocab = json["model"]["vocab"], added = json.value("added_tokens", Json::array());
  if (!vocab.is_object() || !added.is_array())
    Fail("tokenizer.json: model.vocab is not an object, or added_tokens not a list");
  const size_t limit = std::max(rows, vocab.size() + added.size());
  Vocabulary v;
  for (const auto& [token, id] : vocab.items()) Put(v, id, token, kNormal, limit);
  for (const Json& token : added) {
    if (!token.is_object() || !token.contains("id") || !token.contains("content") ||
        !token["content"].is_string())
      Fail("tokenizer.json: an added token without id or content");
    Put(v, token["id"], token["content"],
        token.value("special", Json()) == true ? kControl : kUserDefined, limit);
  }
  // The embedding has more rows than there are tokens; GGUF files name the rest like this.
  v.tokens.resize(std::max(rows, v.tokens.size()));
  v.types.resize(v.tokens.size(), kUnused);
  for (size_t i = 0; i < v.tokens.size(); ++i)
    if (v.types[i] == kUnused) v.tokens[i] = fmt::format("[PAD{}]", i);
  return v;
}

// "a b", or ["a", "b"] in newer files.
std::vector<std::string> ReadMerges(const Json& merges) {
  std::vector<std::string> texts;
  for (const Json& merge : merges) {
    const bool pair =
        merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
    if (!pair && !merge.is_string())
      Fail("tokenizer.json: merge {} is neither a text nor a pair of texts", texts.size());
    texts.push_back(pair ? merge[0].get<std::string>() + " " + merge[1].get<std::string>()
                         : merge.get<std::string>());
  }
  return texts;
}

void AddTokenizer(const Json& json, size_t rows, WeightFileParts& parts) {
  const std::string at(kTokenizer);
  if (!json.contains("model") || !json["model"].is_object() || !json["model"].contains("vocab") ||
      !json["model"].contains("merges"))
    Fail("{}: tokenizer.json beside it has no model with vocab and merges (BPE)",
         parts.file.name());
  Vocabulary v;
  try {
    v = ReadVocabulary(json, rows);
    AddStrings(parts, at + "model.merges", ReadMerges(json["model"]["merges"]));
  } catch (const Error& error) {
    Fail("{}: {}", parts.file.name(), error.what());
  }
  AddStrings(parts, at + "model.vocab", std::move(v.tokens));
  AddIntegers(parts, at + "types", std::move(v.types));
}

}  // namespace

WeightFile ReadHf(FileBytes file) {
  WeightFileParts parts{.file = std::move(file),
                        .format = "safetensors",
                        .metadata = {},
                        .tensors = {},
                        .hf_names = true};
  const SafetensorsHeader header = ReadSafetensorsHeader(parts.file);
  parts.data_offset = header.data_offset;
  AddTensors(header, parts);
  AddJsonMetadata(parts, "", MetadataOf(header), std::nullopt);
  if (auto config = ReadBeside(parts.file, "config.json"))
    AddJsonMetadata(parts, kConfig, std::move(*config), std::nullopt);
  SpellQwen2Keys(parts, std::array{kConfig, std::string_view("")}, /*hf=*/true);

  size_t rows = 0;
  for (const WeightTensor& t : parts.tensors)
    if (t.name == "token_embd.weight") rows = t.dims[1];
  if (const auto tokenizer = ReadBeside(parts.file, "tokenizer.json"))
    AddTokenizer(*tokenizer, rows, parts);
  for (const auto& [gguf, hf] : {std::pair{"tokens", "tokenizer.json:model.vocab"},
                                 {"merges", "tokenizer.json:model.merges"},
                                 {"token_type", "tokenizer.json:types"},
                                 {"eos_token_id", "config.json:eos_token_id"}})
    parts.spelling[fmt::format("tokenizer.ggml.{}", gguf)] = hf;
  return WeightFile(std::move(parts));
}

}  // namespace lab
