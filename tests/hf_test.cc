// safetensors with Hugging Face's names.
#include "model/hf.h"

#include "lab/safetensors.h"
#include "model/gguf.h"
#include "tests/apr_pieces.h"

namespace lab::damaged_test {
namespace {

using Json = nlohmann::json;

Json MicroConfig() {
  return {{"model_type", "qwen2"},
          {"architectures", {"Qwen2ForCausalLM"}},
          {"num_hidden_layers", 1},
          {"max_position_embeddings", 64},
          {"hidden_size", 8},
          {"intermediate_size", 16},
          {"num_attention_heads", 2},
          {"num_key_value_heads", 1},
          {"rope_theta", 1000000},
          {"rms_norm_eps", 1e-6},
          {"rope_scaling", nullptr},
          {"use_sliding_window", false},
          {"tie_word_embeddings", false},
          {"hidden_act", "silu"}};
}

// The vocabulary without its special token, which is an added one.
Json MicroTokenizer() {
  Json vocab = Json::object();
  const Names tokens = MicroTokens();
  for (size_t i = 0; i + 1 < tokens.size(); ++i) vocab[tokens[i]] = i;
  return {{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"i s", "h is"}}}},
          {"added_tokens",
           {{{"id", tokens.size() - 1}, {"content", tokens.back()}, {"special", true}}}}};
}

// The same as the file's own metadata.
std::map<std::string, std::string> MicroMetadata() {
  std::map<std::string, std::string> metadata;
  const Json config = MicroConfig();
  for (const auto& [key, value] : config.items())
    metadata[key] = value.is_string() ? value.get<std::string>() : value.dump();
  return metadata;
}

// A folder with the files of Micro().
class HfFolder {
 public:
  HfFolder() { Write("config.json", MicroConfig()), Write("tokenizer.json", MicroTokenizer()); }
  void Write(const std::string& name, const Json& json) { WriteBytes(dir_ / name, json.dump()); }
  void Remove(const std::string& name) { std::filesystem::remove(dir_ / name); }
  std::string path() const { return dir_ / "model.safetensors"; }

  // Extra rows of the embedding and its output have no token.
  std::string WriteWeights(const std::map<std::string, std::string>& metadata = {},
                           size_t extra_rows = 0) const {
    File micro = Micro();
    std::vector<SafetensorsEntry> entries;
    std::vector<std::string> data;
    data.reserve(micro.tensors.size());
    for (const auto& [gguf, hf] : MicroTensorNames()) {
      File::Tensor& t = micro.At(gguf);
      std::vector<size_t> shape(t.dims.rbegin(), t.dims.rend());
      data.push_back(t.data);
      if (shape[0] == MicroTokens().size()) {
        shape[0] += extra_rows;
        data.back().resize(data.back().size() + extra_rows * 8 * sizeof(float));
      }
      entries.push_back(
          {hf,
           "F32",
           shape,
           {reinterpret_cast<const uint8_t*>(data.back().data()), data.back().size()}});
    }
    OutputFile out(path());
    WriteSafetensors(out, entries, metadata);
    out.Commit();
    return path();
  }
  std::optional<std::string> Refusal() const {
    return damaged_test::Refusal(FileBytes::Map(path()));
  }

 private:
  TempDir dir_;
};

Qwen2 LoadMicro() {
  return LoadQwen2(ReadGguf(FileBytes::FromMemory("micro.gguf", Micro().Build())));
}

TEST(HfSafetensors, GivesTheModelOfTheGgufFile) {
  HfFolder folder;
  ExpectSameModel(LoadMicro(), OpenModel(folder.WriteWeights()));
  // Merges as pairs, as newer files have them.
  Json tokenizer = MicroTokenizer();
  tokenizer["model"]["merges"] = Json::array({Json::array({"i", "s"}), Json::array({"h", "is"})});
  folder.Write("tokenizer.json", tokenizer);
  ExpectSameModel(LoadMicro(), OpenModel(folder.path()));
}

TEST(HfSafetensors, ConfigurationFromItsOwnMetadata) {
  HfFolder folder;
  folder.Remove("config.json");
  ExpectSameModel(LoadMicro(), OpenModel(folder.WriteWeights(MicroMetadata())));
}

TEST(HfSafetensors, RowsWithoutTokensGetNamesAsInGgufFiles) {
  HfFolder folder;
  const Qwen2 model = OpenModel(folder.WriteWeights({}, 3));
  const Tokenizer tokenizer(*model.source);
  const size_t n = MicroTokens().size();
  ASSERT_EQ(tokenizer.vocab(), n + 3);
  EXPECT_EQ(tokenizer.Decode(static_cast<int32_t>(n)), "[PAD" + std::to_string(n) + "]");
  EXPECT_EQ(tokenizer.Encode("<|im_end|>"), std::vector<int32_t>{static_cast<int32_t>(n - 1)});
}

TEST(HfSafetensors, WithoutATokenizerThereAreIdsOnly) {
  HfFolder folder;
  folder.Remove("tokenizer.json");
  const Qwen2 model = OpenModel(folder.WriteWeights());
  EXPECT_EQ(model.source->Strings("tokenizer.ggml.tokens"), nullptr);
  const auto refusal = folder.Refusal();
  ASSERT_TRUE(refusal);
  for (const char* said : {"model.safetensors: holds no tokenizer", "tokenizer.json", "--tokens"})
    EXPECT_NE(refusal->find(said), std::string::npos) << *refusal;
}

TEST(HfSafetensors, FilesBesideThatLie) {
  const auto config = [](const char* key, const Json& value) {
    return [=](HfFolder& f) {
      Json json = MicroConfig();
      json[key] = value;
      f.Write("config.json", json);
    };
  };
  const auto tokenizer = [](const std::function<void(Json&)>& change) {
    return [=](HfFolder& f) {
      Json json = MicroTokenizer();
      change(json);
      f.Write("tokenizer.json", json);
    };
  };
  const struct {
    const char* name;
    std::function<void(HfFolder&)> apply;
    const char* said;
  } cases[] = {
      {"no config", [](HfFolder& f) { f.Remove("config.json"); },
       "'config.json:model_type' is mis"},
      {"a config that is none", [](HfFolder& f) { f.Write("config.json", Json(3)); },
       "config.json: not a JSON object"},
      {"llama", config("model_type", "llama"), "the architecture is 'llama'"},
      {"no layers", config("num_hidden_layers", nullptr),
       "'config.json:num_hidden_layers' is missing"},
      {"YaRN", config("rope_scaling", {{"type", "yarn"}}), "RoPE scaling 'yarn'"},
      {"a window", config("use_sliding_window", true), "sliding-window"},
      {"gelu", config("hidden_act", "gelu"), "the activation 'gelu'"},
      {"heads", config("num_attention_heads", 3),
       "'model.layers.0.self_attn.q_proj.weight' is 8 x 8, but 6 rows of 8"},
      {"no model", tokenizer([](Json& j) { j.erase("model"); }), "no model with vocab"},
      {"an id far out", tokenizer([](Json& j) { j["model"]["vocab"]["is"] = 1ull << 40; }),
       "'is' has the id 1099511627776"},
      {"a negative id", tokenizer([](Json& j) { j["model"]["vocab"]["is"] = -1; }),
       "'is' has the id -1"},
      {"an added token without id", tokenizer([](Json& j) { j["added_tokens"][0].erase("id"); }),
       "an added token without id"},
      {"a merge that is none", tokenizer([](Json& j) { j["model"]["merges"][0] = 7; }),
       "merge 0 is neither"},
      {"a merge of nothing", tokenizer([](Json& j) { j["model"]["merges"][0] = "zz is"; }),
       "merge 0 ('zz is')"}};
  HfFolder folder;
  folder.WriteWeights();
  EXPECT_EQ(folder.Refusal(), std::nullopt);
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name);
    folder.Write("config.json", MicroConfig());
    folder.Write("tokenizer.json", MicroTokenizer());
    c.apply(folder);
    const auto refusal = folder.Refusal();
    ASSERT_TRUE(refusal) << "taken for a valid model";
    EXPECT_TRUE(refusal->find("model.safetensors: ") != std::string::npos ||
                refusal->find("config.json: ") != std::string::npos)
        << *refusal;
    EXPECT_NE(refusal->find(c.said), std::string::npos) << *refusal;
  }
}

TEST(HfSafetensors, HeaderCutOrChangedAnywhere) {
  HfFolder folder;
  size_t refused = 0, valid = 0;
  const auto look = [&](std::string bytes) {
    Bytes copy(bytes.begin(), bytes.end());
    try {
      LoadQwen2(ReadWeightFile(FileBytes::FromMemory("f", std::move(copy))));
      return true;
    } catch (const Error& error) {
      EXPECT_TRUE(std::string_view(error.what()).starts_with("f: ")) << error.what();
      return false;
    }
  };
  const std::string whole = ReadBytes(folder.WriteWeights(MicroMetadata()));
  const size_t header = ReadHf(FileBytes::Map(folder.path())).data_offset();
  ASSERT_TRUE(look(whole));
  for (size_t i = 0; i < header; ++i) {
    SCOPED_TRACE(i);
    EXPECT_FALSE(look(whole.substr(0, i)));
    std::string changed = whole;
    changed[i] = static_cast<char>(changed[i] ^ (i % 2 ? 0xff : 1 << i / 2 % 8));
    ++(look(std::move(changed)) ? valid : refused);
  }
  EXPECT_GT(refused, header / 2);
  EXPECT_GT(valid, 0u);
}

TEST(WeightFile, IsToldByItsFirstBytes) {
  HfFolder folder;
  TempDir dir;
  EXPECT_TRUE(IsWeightFile("tiny"));
  EXPECT_TRUE(IsWeightFile(folder.WriteWeights()));
  const auto write = [&](const Bytes& bytes) { return WriteBytes(dir / "f", AsText(bytes)); };
  EXPECT_TRUE(IsWeightFile(write(MicroApr().Build())));
  EXPECT_TRUE(IsWeightFile(write(Micro().Build())));
  EXPECT_FALSE(IsWeightFile(WriteBytes(dir / "trace.gguf", "{\"kind\":\"header\"}\n")));
  EXPECT_FALSE(IsWeightFile(dir / "absent"));
  EXPECT_FALSE(IsWeightFile(dir.path()));
  // A dump of taps is a safetensors file too.
  const float value = 1;
  const SafetensorsEntry tap = {
      "L00.ffn_out", "F32", {1, 1}, {reinterpret_cast<const uint8_t*>(&value), sizeof value}};
  OutputFile out(dir / "dump");
  WriteSafetensors(out, {&tap, 1}, {});
  out.Commit();
  EXPECT_FALSE(IsWeightFile(dir / "dump"));
}

}  // namespace
}  // namespace lab::damaged_test
