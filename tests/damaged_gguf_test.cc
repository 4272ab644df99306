// Files that lie: a small GGUF file, wrong in one place at a time.
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <functional>
#include <limits>
#include <map>

#include "tests/gguf_pieces.h"

namespace lab::damaged_test {
namespace {

std::optional<std::string> RefusalOf(const File& file) {
  return Refusal(FileBytes::FromMemory("micro.gguf", file.Build()));
}

// What a test does to Micro(), and what the message must say besides the file's name.
struct Damage {
  const char* name;
  std::function<void(File&)> apply;
  Names said;
};

void ExpectRefused(std::span<const Damage> damages) {
  for (const Damage& damage : damages) {
    SCOPED_TRACE(damage.name);
    File file = Micro();
    damage.apply(file);
    const auto refusal = RefusalOf(file);
    ASSERT_TRUE(refusal) << "taken for a valid model";
    EXPECT_TRUE(refusal->starts_with("micro.gguf: ")) << *refusal;
    for (const std::string& said : damage.said)
      EXPECT_NE(refusal->find(said), std::string::npos) << *refusal << "\nlacks: " << said;
  }
}

// Damage to one key or one tensor.
std::function<void(File&)> With(const std::string& key, const std::string& value) {
  return [=](File& f) { f.Set(key, value); };
}
std::function<void(File&)> Without(const std::string& name) {
  return [=](File& f) { f.Drop(name); };
}
std::function<void(File&)> Tensor(const std::string& name,
                                  const std::function<void(File::Tensor&)>& change) {
  return [=](File& f) { change(f.At(name)); };
}

// Forbids large allocations: 1.6 GB for a hundred million entries, say.
class AddressSpaceLimit {
 public:
  explicit AddressSpaceLimit(uint64_t more) {
    uint64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    getrlimit(RLIMIT_AS, &before_);
    rlimit limit = before_;
    limit.rlim_cur = std::min<rlim_t>(before_.rlim_max,
                                      pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) + more);
    EXPECT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
  }
  ~AddressSpaceLimit() { setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_;
};

constexpr uint64_t kHuge = 100'000'000;

TEST(DamagedFile, MicroIsAValidModel) {
  EXPECT_EQ(RefusalOf(Micro()), std::nullopt);
}

TEST(DamagedFile, NeitherHugeCountsNorLengthsAreBelieved) {
  const AddressSpaceLimit limit(256 << 20);
  const auto start = std::chrono::steady_clock::now();
  const std::string key = std::string("key '") + kTokens + "'";
  const Damage damages[] = {
      {"tensors",
       [](File& f) { f.n_tensors = kHuge; },
       {"offset 8", "number of tensors says 100000000"}},
      {"keys",
       [](File& f) { f.n_keys = kHuge; },
       {"offset 16", "number of metadata keys says 100000000"}},
      {"all ones", [](File& f) { f.n_keys = ~uint64_t{0}; }, {"says 18446744073709551615"}},
      {"one key more", [](File& f) { f.n_keys = f.keys.size() + 1; }, {"offset"}},
      {"one tensor more",
       [](File& f) { f.n_tensors = f.tensors.size() + 1; },
       {"offset", "has 0 dimensions"}},
      {"strings", With(kTokens, Array(GgufType::string, kHuge, "")), {key, "says 100000000"}},
      {"bytes", With(kTokens, Array(GgufType::u8, kHuge, "")), {key, "says 100000000"}},
      {"2^61 + 1 numbers of 8 bytes",
       With(kTokens, Array(GgufType::u64, (uint64_t{1} << 61) + 1, "")),
       {key, "says 2305843009213693953"}},
      {"2^61 + 1 strings",
       With(kTokens, Array(GgufType::string, (uint64_t{1} << 61) + 1, "")),
       {key, "says 2305843009213693953"}},
      {"string of 2^63 bytes",
       With("general.name", Value(GgufType::string, Raw(1ull << 63))),
       {"key 'general.name' needs 9223372036854775808 bytes"}},
      {"string of 2^64 - 1 bytes",
       With("general.name", Value(GgufType::string, Raw(~0ull))),
       {"key 'general.name' needs 18446744073709551615 bytes"}},
      {"string in an array",
       With(kTokens, Array(GgufType::string, 1, Raw(1ull << 63))),
       {key, "needs 9223372036854775808 bytes"}}};
  ExpectRefused(damages);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(DamagedFile, Preamble) {
  const Damage damages[] = {
      {"magic",
       [](File& f) { f.magic = "GGML"; },
       {"offset 0", "not a GGUF, APR or safetensors file"}},
      {"version 1", [](File& f) { f.version = 1; }, {"offset 4", "version 1 is not supported"}},
      {"version 4", [](File& f) { f.version = 4; }, {"offset 4", "version 4 is not supported"}},
      {"big-endian", [](File& f) { f.version = 3u << 24; }, {"offset 4", "big-endian"}},
      {"alignment 0", With("general.alignment", U32(0)), {"general.alignment is 0"}},
      {"alignment 7", With("general.alignment", U32(7)), {"general.alignment is 7"}},
      {"alignment 4 GB", With("general.alignment", U32(1u << 31)), {"general.alignment is 2147"}},
      {"alignment -32",
       With("general.alignment", Value(GgufType::i32, Raw(-32))),
       {"key 'general.alignment' is not an unsigned number"}},
      {"alignment as text",
       With("general.alignment", String("32")),
       {"key 'general.alignment' is not an unsigned number"}}};
  ExpectRefused(damages);
}

TEST(DamagedFile, Metadata) {
  const Damage damages[] = {
      {"type 13", With("x", Raw(13u) + Raw(uint64_t{0})), {"key 'x': unknown value type 13"}},
      {"element type 99",
       With("x", Value(GgufType::array, Raw(99u) + Raw(uint64_t{0}))),
       {"key 'x': unknown value type 99"}},
      {"array of arrays",
       With("x", Array(GgufType::array, 1, Integers({1}))),
       {"key 'x': an array of arrays"}},
      {"bool 2", With("x", Value(GgufType::boolean, "\2")), {"key 'x': a bool holds 2"}},
      {"twice",
       [](File& f) { f.keys.push_back(f.keys[1]); },
       {"offset", "key 'qwen2.block_count' appears twice"}},
      {"a name nobody can print",
       With("\xff\n", Raw(13u) + Raw(uint64_t{0})),
       {"key '\\xff\\x0a'"}},
      {"nothing behind the key",
       [](File& f) {
         f = File();
         f.n_keys = 1;
       },
       {"number of metadata keys says 1, but only"}}};
  ExpectRefused(damages);
}

TEST(DamagedFile, TensorInfos) {
  const std::string name = "blk.0.ffn_up.weight", quoted = "tensor '" + name + "'";
  const auto dims = [&](std::vector<uint64_t> d) {
    return Tensor(name, [=](File::Tensor& t) { t.dims = d; });
  };
  const auto offset = [&](uint64_t o) {
    return Tensor(name, [=](File::Tensor& t) { t.offset = o; });
  };
  const Damage damages[] = {
      {"twice",
       [&](File& f) { f.tensors.push_back(f.At(name)); },
       {"offset", quoted + " appears twice"}},
      {"no dimensions", dims({}), {"offset", quoted + " has 0 dimensions"}},
      {"five dimensions", dims({8, 16, 1, 1, 1}), {"offset", quoted + " has 5 dimensions"}},
      {"2^32 - 1 dimensions",
       Tensor(name, [](File::Tensor& t) { t.n_dims = ~0u; }),
       {quoted + " has 4294967295 dimensions"}},
      {"dimension 0", dims({8, 0}), {"offset", quoted + " has a dimension of 0"}},
      {"2^64 elements", dims({1ull << 32, 1ull << 32}), {quoted + " has an impossible shape"}},
      {"2^66 elements",
       dims({1ull << 16, 1ull << 16, 1ull << 17, 1ull << 17}),
       {quoted + " has an impossible shape"}},
      {"2^60 elements", dims({8, 1ull << 57}), {quoted, "past the end of the file"}},
      {"type 99", Tensor(name, [](File::Tensor& t) { t.type = 99; }), {quoted + " has type 99"}},
      {"rows that are no whole blocks",
       Tensor(name, [](File::Tensor& t) { t.type = 12; }),
       {quoted, "rows of 8 values cannot be Q4_K, which comes in blocks of 256"}},
      {"offset 16", offset(16), {quoted, "16 is not a multiple of the alignment 32"}},
      {"offset 1", offset(1), {quoted, "1 is not a multiple of the alignment 32"}},
      {"offset 2^40", offset(1ull << 40), {quoted, "begins at offset", "past the end"}},
      {"offset 2^64 - 32", offset(~uint64_t{31}), {quoted, "past the end"}},
      {"overlap", offset(0), {"'token_embd.weight' and '" + name + "' overlap at offset"}},
      {"overlap by a row",
       [&](File& f) { f.At("output.weight").offset = f.At("token_embd.weight").data.size() - 32; },
       {"'token_embd.weight' and 'output.weight' overlap at offset"}},
      {"data cut",
       [](File& f) { f.tensors.back().data.resize(64); },
       {"tensor 'output.weight'", "ends at offset", "past the end", "truncated"}},
      {"data absent",
       [](File& f) {
         for (auto& t : f.tensors) t.data.clear();
       },
       {"tensor 'token_embd.weight'", "past the end", "truncated"}}};
  ExpectRefused(damages);
}

TEST(DamagedFile, Configuration) {
  const std::string blocks = "qwen2.block_count", eps = "qwen2.attention.layer_norm_rms_epsilon";
  const float infinity = std::numeric_limits<float>::infinity();
  const Damage damages[] = {
      {"no architecture", Without("general.architecture"), {"'general.architecture' is missing"}},
      {"llama", With("general.architecture", String("llama")), {"architecture is 'llama'"}},
      {"architecture as a number",
       With("general.architecture", U32(2)),
       {"offset 24", "key 'general.architecture' is not a string"}},
      {"no layers", With(blocks, U32(0)), {"key '" + blocks + "' is 0"}},
      {"4 billion layers", With(blocks, U32(~0u)), {"key '" + blocks + "' is 4294967295"}},
      {"-1 layers",
       With(blocks, Value(GgufType::i32, Raw(-1))),
       {"offset", "key '" + blocks + "' is not an unsigned number"}},
      {"1.0 layers", With(blocks, F32(1)), {"key '" + blocks + "' is not an unsigned number"}},
      {"no hidden size",
       Without("qwen2.embedding_length"),
       {"key 'qwen2.embedding_length' is missing"}},
      {"huge hidden size",
       With("qwen2.embedding_length", Value(GgufType::u64, Raw(1ull << 60))),
       {"key 'qwen2.embedding_length' is 1152921504606846976"}},
      {"heads",
       With("qwen2.attention.head_count", U32(3)),
       {"tensor 'blk.0.attn_q.weight' is 8 x 8, but 6 rows of 8 are needed"}},
      {"KV heads",
       With("qwen2.attention.head_count_kv", U32(3)),
       {"2 heads cannot share 3 KV heads"}},
      {"odd head_dim", With("qwen2.attention.key_length", U32(3)), {"head_dim is 3"}},
      {"eps 0", With(eps, F32(0)), {"key '" + eps + "' is 0"}},
      {"eps -1", With(eps, F32(-1)), {"key '" + eps + "' is -1"}},
      {"eps NaN", With(eps, F32(std::nanf(""))), {"key '" + eps + "' is nan"}},
      {"eps inf", With(eps, F32(infinity)), {"key '" + eps + "' is inf"}},
      {"eps beyond float", With(eps, Value(GgufType::f64, Raw(1e300))), {"key '" + eps + "' is"}},
      {"eps below float", With(eps, Value(GgufType::f64, Raw(1e-300))), {"key '" + eps + "' is"}},
      {"eps as an integer",
       With(eps, U32(1)),
       {"key '" + eps + "' is not a floating-point number"}},
      {"RoPE scaling", With("qwen2.rope.scaling.type", String("yarn")), {"RoPE scaling 'yarn'"}}};
  ExpectRefused(damages);
}

TEST(DamagedFile, TensorsOfTheModel) {
  const Damage damages[] = {
      {"missing", Without("blk.0.ffn_up.weight"), {"tensor 'blk.0.ffn_up.weight' is missing"}},
      {"no embedding", Without("token_embd.weight"), {"tensor 'token_embd.weight' is missing"}},
      {"rows and columns swapped",
       Tensor("blk.0.ffn_down.weight",
              [](File::Tensor& t) {
                t.dims = {8, 16};
              }),
       {"tensor 'blk.0.ffn_down.weight' is 16 x 8, but 8 rows of 16 are needed"}},
      {"a third dimension",
       Tensor("blk.0.ffn_up.weight",
              [](File::Tensor& t) {
                t.dims = {8, 8, 2};
              }),
       {"tensor 'blk.0.ffn_up.weight' is 16 x 8, but 16 rows of 8"}},
      {"bias too short",
       Tensor("blk.0.attn_k.bias", [](File::Tensor& t) { t.dims = {2}; }),
       {"tensor 'blk.0.attn_k.bias' is 1 x 2, but 1 rows of 4"}},
      {"a second layer",
       With("qwen2.block_count", U32(2)),
       {"12 problems", "'blk.1.attn_norm.weight' is missing",
        "'blk.1.ffn_down.weight' is missing"}},
      {"unexpected",
       [](File& f) { f.Add("blk.0.attn_q_norm.weight", {4}); },
       {"tensor 'blk.0.attn_q_norm.weight' has no place"}},
      {"all at once",
       [](File& f) {
         f.Drop("blk.0.ffn_up.weight");
         f.At("blk.0.attn_q.bias").dims = {4};
         f.At("blk.0.attn_q.weight").type = 99;
         f.Add("rope_freqs.weight", {4});
       },
       {"4 problems", "\n  tensor 'blk.0.ffn_up.weight' is missing",
        "\n  tensor 'blk.0.attn_q.bias' is 1 x 4", "\n  tensor 'blk.0.attn_q.weight' has type 99",
        "\n  tensor 'rope_freqs.weight' has no place"}}};
  ExpectRefused(damages);
}

TEST(DamagedFile, TokenizerThatContradictsItself) {
  const auto tokens = [](const std::function<void(Names&)>& change) {
    return [=](File& f) {
      Names t = MicroTokens();
      change(t);
      f.Set(kTokens, Strings(t));
    };
  };
  const Damage damages[] = {
      {"a token too many",
       tokens([](Names& t) { t.push_back("more"); }),
       {"tokenizer.ggml.tokens has 260 entries, token_embd.weight 259 rows"}},
      {"types too short", With(kTypes, Integers({1, 1, 1})), {"259 tokens but 3 token types"}},
      {"types as floats",
       With(kTypes, Array(GgufType::f32, 1, Raw(1.0f))),
       {"key 'tokenizer.ggml.token_type' is not an array of integers"}},
      {"tokens as numbers",
       With(kTokens, Integers({1})),
       {"key 'tokenizer.ggml.tokens' is not an array of strings"}},
      {"no tokens", Without(kTokens), {"holds no tokenizer"}},
      {"no merges", Without(kMerges), {"holds no tokenizer"}},
      {"the same token twice",
       tokens([](Names& t) { t[257] = "is"; }),
       {"tokens 256 and 257 are both 'is'"}},
      {"a byte without token",
       tokens([](Names& t) { t['q'] = "no q"; }),
       {"no token for byte 113"}},
      {"merge of nothing known", With(kMerges, Strings({"i s", "zz is"})), {"merge 1 ('zz is')"}},
      {"merge into nothing known", With(kMerges, Strings({"i t"})), {"merge 0 ('i t')"}},
      {"merge without a space", With(kMerges, Strings({"is"})), {"merge 0 ('is')"}},
      {"merge without a space, were it with itself",
       [](File& f) {
         Names t = MicroTokens();
         t[257] = "ii";
         f.Set(kTokens, Strings(t));
         f.Set(kMerges, Strings({"i s", "i"}));
       },
       {"merge 1 ('i')"}},
      {"empty merge", With(kMerges, Strings({""})), {"merge 0 ('')"}},
      {"merge with nothing", With(kMerges, Strings({"is "})), {"merge 0 ('is ')"}},
      {"another tokenizer", With("tokenizer.ggml.model", String("llama")), {"is 'llama'"}},
      {"another pattern", With("tokenizer.ggml.pre", String("gpt-2")), {"pattern 'gpt-2'"}}};
  ExpectRefused(damages);
}

TEST(DamagedFile, WhatIsUnusualButRight) {
  const Damage variants[] = {
      {"version 2", [](File& f) { f.version = 2; }, {}},
      {"alignment 64",
       [](File& f) {
         f.Set("general.alignment", U32(64));
         f.alignment = 64;
       },
       {}},
      {"sizes as i64", With("qwen2.block_count", Value(GgufType::i64, Raw(int64_t{1}))), {}},
      {"head size given", With("qwen2.attention.key_length", U32(4)), {}},
      {"keys nobody knows",
       [](File& f) {
         f.Set("a", Value(GgufType::boolean, "\1"));
         f.Set("b", Array(GgufType::f64, 2, Raw(1.0) + Raw(2.0)));
         f.Set("c", Array(GgufType::string, 0, ""));
         f.Set("d", Value(GgufType::i8, "\xff"));
         f.Set("\xff", String("\xff"));
       },
       {}},
      {"end of text beyond the vocabulary", With("tokenizer.ggml.eos_token_id", U32(~0u)), {}},
      {"a gap between tensors",
       [](File& f) {
         f.tensors.back().offset = 1 << 20;
         f.tensors[0].data.resize(1 << 20);
         f.tensors[0].data.resize(2 << 20);
       },
       {}}};
  for (const Damage& variant : variants) {
    SCOPED_TRACE(variant.name);
    File file = Micro();
    variant.apply(file);
    EXPECT_EQ(RefusalOf(file), std::nullopt);
  }
}

TEST(DamagedFile, WithoutAnOutputMatrixTheEmbeddingServes) {
  File file = Micro();
  EXPECT_FALSE(LoadQwen2(ReadGguf(FileBytes::FromMemory("f", file.Build()))).config.tied_output);
  file.Drop("output.weight");
  EXPECT_EQ(RefusalOf(file), std::nullopt);
  const Qwen2 model = LoadQwen2(ReadGguf(FileBytes::FromMemory("f", file.Build())));
  EXPECT_TRUE(model.config.tied_output);
  EXPECT_EQ(model.output.data, model.token_embd.data);
  EXPECT_EQ(model.output.rows, MicroTokens().size());
}

}  // namespace
}  // namespace lab::damaged_test
