// APR v2 files: of both writers, of an independent converter, and files that lie.
#include "model/apr.h"

#include "lab/safetensors.h"
#include "model/gguf.h"
#include "tests/apr_pieces.h"
#include "tests/golden.h"

namespace lab::damaged_test {
namespace {

std::optional<std::string> RefusalOf(const AprFile& file) {
  return Refusal(FileBytes::FromMemory("micro.apr", file.Build()));
}

Qwen2 Load(const AprFile& file) {
  return LoadQwen2(ReadWeightFile(FileBytes::FromMemory("micro.apr", file.Build())));
}
Qwen2 LoadMicro() {
  return LoadQwen2(ReadGguf(FileBytes::FromMemory("micro.gguf", Micro().Build())));
}

TEST(Apr, BothWritersGiveTheModelOfTheGgufFile) {
  ExpectSameModel(LoadMicro(), Load(MicroApr()));
  ExpectSameModel(LoadMicro(), Load(MicroAprOfGguf()));
}

TEST(Apr, AnIndependentConverterGivesTheModelOfTheGgufFile) {
  const Qwen2 gguf = OpenModel(GoldenPath("micro.gguf")), apr = OpenModel(GoldenPath("micro.apr"));
  EXPECT_EQ(apr.source->format(), "APR version 2");
  ExpectSameModel(gguf, apr);
  // It stores a second copy of a tied embedding.
  EXPECT_TRUE(gguf.config.tied_output);
  EXPECT_FALSE(apr.config.tied_output);
  EXPECT_EQ(CheckAprFooter(*apr.source), AprFooter::right);
}

TEST(Apr, EveryTypeHasTheBytesOfTheGgufFile) {
  const WeightFile gguf = ReadGguf(FileBytes::Map(GoldenPath("every_type.gguf")));
  const WeightFile apr = ReadApr(FileBytes::Map(GoldenPath("every_type.apr")));
  EXPECT_EQ(gguf.tensors().size(), kBlockTypes.size());
  for (const WeightTensor& t : gguf.tensors()) {
    SCOPED_TRACE(t.name);
    const WeightTensor* other = apr.FindTensor(t.name);
    ASSERT_NE(other, nullptr);
    EXPECT_EQ(other->block, t.block);
    EXPECT_EQ(other->dims, t.dims);
    ASSERT_EQ(other->bytes, t.bytes);
    EXPECT_EQ(std::memcmp(other->data, t.data, t.bytes), 0);
  }
}

// APR's own types, padded rows, and codes that two types share, without hints.
TEST(Apr, TypesOfItsOwnAreToldApartAndDecoded) {
  const WeightFile apr = ReadApr(FileBytes::Map(GoldenPath("apr_types.apr")));
  const Safetensors golden(GoldenPath("apr_types.safetensors"));
  const std::map<std::string, std::string> types = {
      {"q4", "APR_Q4"}, {"q4_old", "APR_Q4"}, {"q8", "APR_Q8"},          {"q8_old", "APR_Q8"},
      {"q5_0", "Q5_0"}, {"q8_0", "Q8_0"},     {"padded", "Q4_K padded"}, {"i8", "I8"},
      {"q4_1", "Q4_1"}, {"bf16", "BF16"}};
  EXPECT_EQ(apr.tensors().size(), types.size());
  size_t decoded = 0;
  for (const WeightTensor& t : apr.tensors()) {
    SCOPED_TRACE(t.name);
    EXPECT_EQ(t.type, types.at(t.name));
    const SafetensorsEntry* expected = golden.Find(t.name);
    std::vector<float> values(t.elements());
    ASSERT_EQ(DequantFlat(t, 0, values.size(), values.data()), expected != nullptr);
    if (!expected) continue;
    ASSERT_EQ(expected->data.size(), values.size() * sizeof(float));
    EXPECT_EQ(std::memcmp(values.data(), expected->data.data(), expected->data.size()), 0);
    // Any stretch is the same values.
    std::vector<float> part(37);
    ASSERT_TRUE(DequantFlat(t, 101, part.size(), part.data()));
    EXPECT_EQ(std::memcmp(part.data(), &values[101], part.size() * sizeof(float)), 0);
    ++decoded;
  }
  EXPECT_EQ(decoded, 8u);
}

TEST(Apr, TheChecksumAtTheEnd) {
  const auto footer_of = [](Bytes bytes) {
    return CheckAprFooter(ReadApr(FileBytes::FromMemory("f", std::move(bytes))));
  };
  const Bytes good = MicroApr().Build();
  EXPECT_EQ(footer_of(good), AprFooter::right);
  Bytes changed = good;
  changed[changed.size() - 100] ^= 1;
  EXPECT_EQ(footer_of(changed), AprFooter::wrong);
  EXPECT_EQ(footer_of({good.begin(), good.end() - 4}), AprFooter::absent);
  EXPECT_EQ(CheckAprFooter(ReadGguf(FileBytes::FromMemory("f", Micro().Build()))),
            AprFooter::absent);
}

// What a test does to MicroApr(), and what the message must say besides the file's name.
struct Damage {
  const char* name;
  std::function<void(AprFile&)> apply;
  Names said;
};

void ExpectRefused(std::span<const Damage> damages) {
  for (const Damage& damage : damages) {
    SCOPED_TRACE(damage.name);
    AprFile file = MicroApr();
    damage.apply(file);
    const auto refusal = RefusalOf(file);
    ASSERT_TRUE(refusal) << "taken for a valid model";
    EXPECT_TRUE(refusal->starts_with("micro.apr: ")) << *refusal;
    for (const std::string& said : damage.said)
      EXPECT_NE(refusal->find(said), std::string::npos) << *refusal << "\nlacks: " << said;
  }
}

TEST(DamagedApr, Header) {
  const Damage damages[] = {
      {"v1", [](AprFile& f) { f.magic = "APRN"; }, {"offset 0", "APR v1"}},
      {"APR2", [](AprFile& f) { f.magic = "APR2"; }, {"offset 0", "not an APR v2 file", "APR2"}},
      {"version 3", [](AprFile& f) { f.major = 3; }, {"offset 4", "version 3.0"}},
      {"CRC", [](AprFile& f) { f.right_crc = false; }, {"offset 40", "header's CRC"}},
      {"LZ4", [](AprFile& f) { f.flags |= 1; }, {"offset 6", "0x0401", "compressed"}},
      {"encrypted", [](AprFile& f) { f.flags |= 4; }, {"offset 6", "encrypted"}},
      {"shards", [](AprFile& f) { f.flags |= 0x10; }, {"offset 6", "shards"}},
      {"column-major", [](AprFile& f) { f.flags |= 0x800; }, {"offset 6", "column-major"}},
      {"4 billion tensors",
       [](AprFile& f) { f.n_tensors = ~0u; },
       {"offset 8", "number of tensors is 4294967295", "only"}},
      {"a tensor too many",
       [](AprFile& f) { ++f.n_tensors.emplace(f.tensors.size()); },
       {"tensor"}},
      {"metadata past the end",
       [](AprFile& f) { f.metadata_offset = ~uint64_t{0}; },
       {"offset 12", "the metadata begins at offset 18446744073709551615", "past the end"}},
      {"4 GB of metadata",
       [](AprFile& f) { f.metadata_size = ~0u; },
       {"offset 64", "the metadata needs 4294967295 bytes"}},
      {"index past the end",
       [](AprFile& f) { f.index_offset = uint64_t{1} << 40; },
       {"offset 24", "the index begins at offset", "past the end"}},
      {"data inside the index",
       [](AprFile& f) { f.data_offset = 64; },
       {"offset 32", "inside the index"}},
      {"data past the end",
       [](AprFile& f) { f.data_offset = ~uint64_t{0} - 10; },
       {"tensor 'model.", "past the end"}},
      {"bytes behind it", [](AprFile& f) { f.tail = "12345"; }, {"the file ends at", "truncated"}}};
  ExpectRefused(damages);
}

TEST(DamagedApr, Metadata) {
  const auto text = [](const std::string& json) {
    return [=](AprFile& f) { f.metadata_text = json; };
  };
  const auto with = [](const std::string& key, const nlohmann::json& value) {
    return [=](AprFile& f) { f.metadata[key] = value; };
  };
  const auto without = [](const std::string& key) {
    return [=](AprFile& f) { f.metadata.erase(key); };
  };
  const Damage damages[] = {
      {"no JSON", text("hello"), {"offset 64", "the metadata: not a JSON object", "bad byte 1"}},
      {"a list", text("[1]"), {"offset 64", "not a JSON object"}},
      {"bad UTF-8", text("{\"a\":\"\xff\"}"), {"offset 64", "bad byte"}},
      {"a key twice", text(R"({"a":1,"a":2})"), {"offset 64", "key 'a' appears twice"}},
      {"deep", text("{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}"), {"deeper"}},
      {"a number beyond double", text(R"({"a":1e999})"), {"offset 64", "not a JSON object"}},
      {"no architecture",
       [](AprFile& f) {
         for (const char* key : {"architecture", "model_type"}) f.metadata.erase(key);
       },
       {"key 'architecture' is missing"}},
      {"llama", with("architecture", "llama"), {"the architecture is 'llama'"}},
      {"no layers", without("num_layers"), {"key 'num_layers' is missing"}},
      {"huge", with("hidden_size", 1ull << 60), {"key 'hidden_size' is 1152921504606846976"}},
      {"negative", with("hidden_size", -8), {"offset 64", "'hidden_size' is not an unsigned"}},
      {"text", with("hidden_size", "8"), {"offset 64", "'hidden_size' is not an unsigned"}},
      {"contradiction",
       with("n_embd", 16),
       {"'hidden_size' is 8, but 'n_embd' is 16", "two names"}},
      {"adjacent pairs", with("rope_type", 0), {"key 'rope_type' is 0"}},
      {"eps 0", with("rms_norm_eps", 0), {"key 'rms_norm_eps' is 0"}},
      {"tokens as numbers",
       with("tokenizer.vocabulary", {1, 2}),
       {"'tokenizer.vocabulary' is not an array of strings"}},
      {"a token too many",
       [](AprFile& f) { f.metadata["tokenizer.vocabulary"].push_back("more"); },
       {"tokenizer.vocabulary has 260 entries, model.embed_tokens.weight 259 rows"}},
      {"no merges", without("tokenizer.merges"), {"no tokenizer", "'tokenizer.merges'"}}};
  ExpectRefused(damages);
}

TEST(DamagedApr, Index) {
  const std::string name = "model.layers.0.mlp.up_proj.weight", quoted = "tensor '" + name + "'";
  const auto tensor = [&](const std::function<void(AprFile::Tensor&)>& change) {
    return [=](AprFile& f) { change(f.At(name)); };
  };
  const auto dims = [&](std::vector<uint64_t> d) {
    return tensor([=](AprFile::Tensor& t) { t.dims = d; });
  };
  const Damage damages[] = {
      {"missing", [&](AprFile& f) { f.Drop(name); }, {quoted + " is missing"}},
      {"twice", [&](AprFile& f) { f.tensors.push_back(f.At(name)); }, {quoted + " appears twice"}},
      {"twice by another name",
       [&](AprFile& f) {
         f.tensors.push_back(f.At(name));
         f.tensors.back().name = "layers.0.mlp.up_proj.weight";
       },
       {"two names of the same"}},
      {"unexpected",
       [](AprFile& f) {
         f.tensors.push_back(f.tensors[0]);
         f.tensors.back().name = "model.layers.0.self_attn.q_norm.weight";
       },
       {"'model.layers.0.self_attn.q_norm.weight' has no place"}},
      {"dimensions exchanged", dims({8, 16}), {quoted + " is 8 x 16, but 16 rows of 8"}},
      {"no such size", dims({16, 9}), {quoted, "144 values of type code 0 cannot be 512 bytes"}},
      {"dimension 0", dims({0, 8}), {quoted + " has a dimension of 0"}},
      {"2^64 elements", dims({1ull << 32, 1ull << 32}), {quoted + " has an impossible shape"}},
      {"2^60 elements", dims({1ull << 57, 8}), {quoted, "cannot be 512 bytes"}},
      {"padded rows whose size overflows to 194 bytes",
       tensor([](AprFile::Tensor& t) {
         t.code = 14;
         t.dims = {87841638446235961u, 1};
         t.data.resize(194);
       }),
       {quoted, "cannot be 194 bytes"}},
      {"5 dimensions", dims({1, 1, 1, 16, 8}), {quoted + " has 5 dimensions"}},
      {"255 dimensions",
       tensor([](AprFile::Tensor& t) { t.n_dims = 255; }),
       {"offset", "truncated"}},
      {"type 99", tensor([](AprFile::Tensor& t) { t.code = 99; }), {quoted, "type code 99"}},
      {"F16 of that size", tensor([](AprFile::Tensor& t) { t.code = 1; }), {quoted, "code 1"}},
      {"size 0", tensor([](AprFile::Tensor& t) { t.size = 0; }), {quoted, "cannot be 0 bytes"}},
      {"size 2^64 - 1", tensor([](AprFile::Tensor& t) { t.size = ~0ull; }), {quoted, "cannot be"}},
      {"offset 2^40",
       tensor([](AprFile::Tensor& t) { t.offset = 1ull << 40; }),
       {quoted, "past the end"}},
      {"offset 2^64 - 64",
       tensor([](AprFile::Tensor& t) { t.offset = ~0ull - 63; }),
       {quoted, "past the end"}},
      {"offset 2", tensor([](AprFile::Tensor& t) { t.offset = 2; }), {quoted, "aligned to 4"}},
      {"overlap", tensor([](AprFile::Tensor& t) { t.offset = 0; }), {"overlap at offset"}},
      {"a type that lab cannot compute with",
       tensor([](AprFile::Tensor& t) {
         t.code = 129;
         t.data.resize(4 + 128);
       }),
       {quoted + " has APR_Q8, which lab cannot compute with"}}};
  ExpectRefused(damages);
}

// The smallest header there is: one key instead of 259 tokens.
AprFile SmallApr() {
  AprFile apr = MicroApr();
  for (const char* key : {"tokenizer.vocabulary", "tokenizer.token_type"}) apr.metadata.erase(key);
  return apr;
}

// Error or a file whose tensors can be read.
bool IsReadable(Bytes bytes) {
  try {
    const WeightFile apr = ReadWeightFile(FileBytes::FromMemory("f", std::move(bytes)));
    for (const WeightTensor& t : apr.tensors()) {
      std::vector<float> values(std::min<uint64_t>(t.elements(), 1 << 20));
      if (t.data) DequantFlat(t, t.elements() - values.size(), values.size(), values.data());
    }
    try {
      LoadQwen2(ReadWeightFile(FileBytes::Borrow("f", apr.file().bytes())));
    } catch (const Error&) {
    }
    return true;
  } catch (const Error& error) {
    EXPECT_TRUE(std::string_view(error.what()).starts_with("f: ")) << error.what();
    return false;
  }
}

TEST(DamagedApr, CutOrChangedAnywhere) {
  const Bytes good = SmallApr().Build();
  ASSERT_TRUE(IsReadable(good));
  const size_t header = ReadApr(FileBytes::Borrow("f", good)).data_offset();
  size_t refused = 0;
  for (size_t i = 0; i < header; ++i) {
    SCOPED_TRACE(i);
    EXPECT_FALSE(IsReadable({good.begin(), good.begin() + static_cast<ptrdiff_t>(i)}));
    for (const int change : {0xff, 1 << i % 8}) {
      Bytes changed = good;
      changed[i] ^= static_cast<uint8_t>(change);
      refused += !IsReadable(std::move(changed));
    }
    if (i == 63) {
      EXPECT_EQ(refused, 128u) << "the CRC covers every byte of the header";
    }
  }
  EXPECT_GT(refused, header / 2);
  // Behind the header nothing but the last padding and the CRC may be cut.
  for (size_t n = header; n < good.size() - 4 - 64; ++n)
    EXPECT_FALSE(IsReadable({good.begin(), good.begin() + static_cast<ptrdiff_t>(n)})) << n;
}

}  // namespace
}  // namespace lab::damaged_test
