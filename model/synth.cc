#include "model/synth.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <unordered_set>

#include "kernels/block_types.h"
#include "lab/error.h"
#include "lab/names.h"
#include "lab/random.h"
#include "model/byte_alphabet.h"
#include "model/gguf.h"

namespace lab {
namespace {

struct Shape {
  std::string_view name;
  uint32_t layers, hidden, ffn, heads, kv_heads, head_dim, vocab;
  bool tied;
};

// The published Qwen2.5 shapes, and one that loads in milliseconds.
constexpr std::array<Shape, 4> kShapes = {{
    {"tiny", 28, 256, 768, 4, 2, 64, 512, false},
    {"random:0.5b", 24, 896, 4864, 14, 2, 64, 151936, true},
    {"random:1.5b", 28, 1536, 8960, 12, 2, 128, 151936, false},
    {"random:7b", 28, 3584, 18944, 28, 4, 128, 152064, false},
}};

constexpr std::array<std::string_view, 22> kSpecials = {
    "<|endoftext|>",      "<|im_start|>",     "<|im_end|>",     "<|object_ref_start|>",
    "<|object_ref_end|>", "<|box_start|>",    "<|box_end|>",    "<|quad_start|>",
    "<|quad_end|>",       "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>",      "<|video_pad|>",    "<tool_call>",    "</tool_call>",
    "<|fim_prefix|>",     "<|fim_middle|>",   "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>",      "<|file_sep|>"};

// Half float bits of a positive value in the normal or subnormal range, rounded down.
uint16_t HalfBits(float value) {
  int exponent;
  const float mantissa =
      std::frexp(value, &exponent);  // value = mantissa 2^exponent, mantissa >= 1/2
  if (exponent < -13) return static_cast<uint16_t>(value * 0x1p24f);
  return static_cast<uint16_t>((exponent + 14) << 10 | (static_cast<int>(mantissa * 2048) & 1023));
}

// Random blocks whose values have mean 0 and standard deviation near `sigma`.
void FillBlocks(BlockType type, uint8_t* out, size_t blocks, float sigma, Random& random) {
  const size_t bytes = InfoOf(type).bytes;
  // Standard deviation of the stored integer, times that of a typical sub-block scale.
  const float unit = type == BlockType::Q4_K   ? 4.6f * 48
                     : type == BlockType::Q6_K ? 18.5f * 64
                     : type == BlockType::Q5_0 ? 9.2f
                                               : 73.9f;
  const uint16_t d = HalfBits(sigma / unit);
  for (size_t b = 0; b < blocks; ++b, out += bytes) {
    random.Fill(out, bytes);
    const auto block_d = static_cast<uint16_t>(d + random.Below(16));
    if (type == BlockType::Q4_K) {
      auto* block = reinterpret_cast<BlockQ4_K*>(out);
      block->d = block_d;
      block->dmin = HalfBits(7.5f * sigma / unit);
      // Scales 32..63 and the same minima: 7.5 d scale is what centres four-bit values.
      for (int s = 0; s < 4; ++s) {
        const uint32_t first = 32 + random.Below(32), second = 32 + random.Below(32);
        const auto high = static_cast<uint8_t>(second >> 4 << 6);
        block->scales[s] = block->scales[s + 4] = static_cast<uint8_t>(first | high);
        block->scales[s + 8] = static_cast<uint8_t>((second & 15) * 17);
      }
    } else if (type == BlockType::Q6_K) {
      auto* block = reinterpret_cast<BlockQ6_K*>(out);
      for (int8_t& scale : block->scales) {
        const auto magnitude = static_cast<int>(48 + random.Below(32));  // drawn before the sign
        scale = static_cast<int8_t>(random.Below(2) ? magnitude : -magnitude);
      }
      block->d = block_d;
    } else {
      std::memcpy(out, &block_d, sizeof block_d);  // Q5_0 and Q8_0 begin with d
    }
  }
}

class GgufWriter {
 public:
  template <class T>
  void Put(T value) {
    const auto* p = reinterpret_cast<const uint8_t*>(&value);
    bytes_.insert(bytes_.end(), p, p + sizeof value);
  }
  void Put(std::string_view text) {
    Put(uint64_t{text.size()});
    bytes_.insert(bytes_.end(), text.begin(), text.end());
  }
  void Key(std::string_view key, GgufType type) {
    Put(key);
    Put(type);
    ++keys_;
  }
  void Key(std::string_view key, uint32_t value) { Key(key, GgufType::u32), Put(value); }
  void Key(std::string_view key, float value) { Key(key, GgufType::f32), Put(value); }
  void Key(std::string_view key, std::string_view value) { Key(key, GgufType::string), Put(value); }
  void Array(std::string_view key, GgufType element, size_t size) {
    Key(key, GgufType::array);
    Put(element);
    Put(uint64_t{size});
  }
  uint64_t keys() const { return keys_; }
  std::vector<uint8_t>& bytes() { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
  uint64_t keys_ = 0;
};

struct Vocabulary {
  std::vector<std::string> tokens, merges;
  std::vector<int32_t> types;
};

// 256 bytes, then merges of two earlier tokens, then the special tokens, then padding, in the
// proportions of Qwen2.5. Every token can be reached by its merge.
Vocabulary MakeVocabulary(const Shape& shape) {
  constexpr int32_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;
  const bool small = shape.vocab < 1000;
  const size_t merges = small ? 128 : 151387;
  Vocabulary v;
  for (int byte = 0; byte < 256; ++byte)
    v.tokens.push_back(BytesToAlphabet(std::string(1, static_cast<char>(byte))));
  std::unordered_set<std::string> known(v.tokens.begin(), v.tokens.end());
  Random random(shape.vocab);
  while (v.merges.size() < merges) {
    // Small vocabularies merge printable ASCII, so that ordinary text meets the merges.
    const auto pick = [&] {
      return small && v.merges.size() < 96 ? 33 + random.Below(94)
                                           : random.Below(static_cast<uint32_t>(v.tokens.size()));
    };
    const std::string left = v.tokens[pick()], right = v.tokens[pick()];
    if (left.size() + right.size() > 12 || !known.insert(left + right).second) continue;
    v.tokens.push_back(left + right);
    v.merges.push_back(left + " " + right);
  }
  v.types.assign(v.tokens.size(), kNormal);
  for (const std::string_view special : kSpecials) {
    v.tokens.emplace_back(special);
    v.types.push_back(special.starts_with("<|") ? kControl : kUserDefined);
  }
  for (size_t i = v.tokens.size(); i < shape.vocab; ++i) {
    v.tokens.push_back(fmt::format("[PAD{}]", i));
    v.types.push_back(kUnused);
  }
  return v;
}

void PutMetadata(const Shape& shape, GgufWriter& out) {
  const Vocabulary vocabulary = MakeVocabulary(shape);
  const auto id_of = [&](std::string_view token) {
    const auto it = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), token);
    return static_cast<uint32_t>(it - vocabulary.tokens.begin());
  };
  out.Key("general.architecture", std::string_view("qwen2"));
  out.Key("general.name", std::string(shape.name));
  out.Key("qwen2.block_count", shape.layers);
  out.Key("qwen2.context_length", 32768u);
  out.Key("qwen2.embedding_length", shape.hidden);
  out.Key("qwen2.feed_forward_length", shape.ffn);
  out.Key("qwen2.attention.head_count", shape.heads);
  out.Key("qwen2.attention.head_count_kv", shape.kv_heads);
  out.Key("qwen2.rope.freq_base", 1e6f);
  out.Key("qwen2.attention.layer_norm_rms_epsilon", 1e-6f);
  out.Key("tokenizer.ggml.model", std::string_view("gpt2"));
  out.Key("tokenizer.ggml.pre", std::string_view("qwen2"));
  out.Key("tokenizer.ggml.eos_token_id", id_of("<|im_end|>"));
  out.Key("tokenizer.ggml.padding_token_id", id_of("<|endoftext|>"));
  out.Array("tokenizer.ggml.tokens", GgufType::string, vocabulary.tokens.size());
  for (const std::string& token : vocabulary.tokens) out.Put(std::string_view(token));
  out.Array("tokenizer.ggml.token_type", GgufType::i32, vocabulary.types.size());
  for (const int32_t type : vocabulary.types) out.Put(type);
  out.Array("tokenizer.ggml.merges", GgufType::string, vocabulary.merges.size());
  for (const std::string& merge : vocabulary.merges) out.Put(std::string_view(merge));
}

struct TensorPlan {
  std::string name;
  BlockType type;
  uint64_t rows, cols;
  enum Kind { matrix, norm, bias } kind;

  uint64_t bytes() const { return WeightView{type, nullptr, rows, cols}.bytes(); }
};

// llama.cpp's recipe for Q4_K_M: half of the layers keep attn_v and ffn_down in Q6_K; rows that are
// no multiple of 256 fall back to 32-value blocks.
std::vector<TensorPlan> PlanTensors(const Shape& s) {
  const auto matrix = [](std::string name, bool more_bits, uint64_t rows, uint64_t cols) {
    const bool k_quant = cols % 256 == 0;
    const BlockType type = more_bits ? (k_quant ? BlockType::Q6_K : BlockType::Q8_0)
                                     : (k_quant ? BlockType::Q4_K : BlockType::Q5_0);
    return TensorPlan{std::move(name), type, rows, cols, TensorPlan::matrix};
  };
  const uint64_t q_dim = s.heads * s.head_dim, kv_dim = s.kv_heads * s.head_dim;
  std::vector<TensorPlan> plan = {matrix("token_embd.weight", s.tied, s.vocab, s.hidden)};
  for (uint32_t i = 0; i < s.layers; ++i) {
    const std::string blk = fmt::format("blk.{}.", i);
    const uint32_t eighth = s.layers / 8;
    const bool more = i < eighth || i >= 7 * s.layers / 8 || (i - eighth) % 3 == 2;
    const auto vector = [&](const char* name, TensorPlan::Kind kind, uint64_t n) {
      plan.push_back({blk + name, BlockType::F32, 1, n, kind});
    };
    vector("attn_norm.weight", TensorPlan::norm, s.hidden);
    plan.push_back(matrix(blk + "attn_q.weight", false, q_dim, s.hidden));
    vector("attn_q.bias", TensorPlan::bias, q_dim);
    plan.push_back(matrix(blk + "attn_k.weight", false, kv_dim, s.hidden));
    vector("attn_k.bias", TensorPlan::bias, kv_dim);
    plan.push_back(matrix(blk + "attn_v.weight", more, kv_dim, s.hidden));
    vector("attn_v.bias", TensorPlan::bias, kv_dim);
    plan.push_back(matrix(blk + "attn_output.weight", false, s.hidden, q_dim));
    vector("ffn_norm.weight", TensorPlan::norm, s.hidden);
    plan.push_back(matrix(blk + "ffn_gate.weight", false, s.ffn, s.hidden));
    plan.push_back(matrix(blk + "ffn_up.weight", false, s.ffn, s.hidden));
    plan.push_back(matrix(blk + "ffn_down.weight", more, s.hidden, s.ffn));
  }
  plan.push_back({"output_norm.weight", BlockType::F32, 1, s.hidden, TensorPlan::norm});
  if (!s.tied) plan.push_back(matrix("output.weight", true, s.vocab, s.hidden));
  return plan;
}

void FillTensor(const TensorPlan& t, uint8_t* out, Random& random) {
  if (t.kind == TensorPlan::matrix) {
    const float sigma = 1.0f / std::sqrt(static_cast<float>(t.cols));
    return FillBlocks(t.type, out, t.rows * t.cols / InfoOf(t.type).elements, sigma, random);
  }
  for (uint64_t i = 0; i < t.cols; ++i) {
    const float value =
        t.kind == TensorPlan::norm ? 1.0f + 0.25f * random.Signed() : 2.0f * random.Signed();
    std::memcpy(out + i * sizeof value, &value, sizeof value);
  }
}

const Shape* FindShape(std::string_view name) {
  for (const Shape& shape : kShapes)
    if (shape.name == name) return &shape;
  return nullptr;
}

}  // namespace

bool IsSynthShape(std::string_view name) {
  return FindShape(name) != nullptr;
}

std::string SynthShapeNames() {
  std::vector<std::string_view> names;
  for (const Shape& shape : kShapes) names.push_back(shape.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

std::vector<uint8_t> MakeSynthGguf(std::string_view name) {
  const Shape* shape = FindShape(name);
  if (!shape) Fail("'{}' is not a synthetic shape; known: {}", Printable(name), SynthShapeNames());
  constexpr uint64_t kAlignment = 32;
  const auto aligned = [](uint64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; };

  const std::vector<TensorPlan> plan = PlanTensors(*shape);
  GgufWriter keys;
  PutMetadata(*shape, keys);
  GgufWriter out;
  for (const char c : {'G', 'G', 'U', 'F'}) out.Put(c);
  out.Put(uint32_t{3});
  out.Put(uint64_t{plan.size()});
  out.Put(keys.keys());
  out.bytes().insert(out.bytes().end(), keys.bytes().begin(), keys.bytes().end());
  uint64_t offset = 0;
  for (const TensorPlan& t : plan) {
    out.Put(std::string_view(t.name));
    const bool vector = t.kind != TensorPlan::matrix;
    out.Put(vector ? 1u : 2u);
    out.Put(t.cols);
    if (!vector) out.Put(t.rows);
    out.Put(t.type);
    out.Put(offset);
    offset += aligned(t.bytes());
  }
  const uint64_t data_offset = aligned(out.bytes().size());
  std::vector<uint8_t>& file = out.bytes();
  file.resize(data_offset + offset);
  Random random(42);
  uint8_t* at = file.data() + data_offset;
  for (const TensorPlan& t : plan) {
    FillTensor(t, at, random);
    at += aligned(t.bytes());
  }
  return std::move(file);
}

}  // namespace lab
