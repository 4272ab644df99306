#pragma once
// GGUF files written in pieces, each of which a test can bend.
#include <cmath>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/byte_alphabet.h"
#include "model/gguf.h"
#include "tests/damaged_util.h"

namespace lab::damaged_test {

template <class T>
std::string Raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
inline std::string Text(std::string_view text) {
  return Raw(uint64_t{text.size()}) + std::string(text);
}
inline std::string Value(GgufType type, const std::string& bytes) {
  return Raw(type) + bytes;
}
inline std::string U32(uint32_t value) {
  return Value(GgufType::u32, Raw(value));
}
inline std::string F32(float value) {
  return Value(GgufType::f32, Raw(value));
}
inline std::string String(std::string_view text) {
  return Value(GgufType::string, Text(text));
}
inline std::string Array(GgufType element, uint64_t size, const std::string& bytes) {
  return Value(GgufType::array, Raw(element) + Raw(size) + bytes);
}
inline std::string Strings(const Names& texts) {
  std::string bytes;
  for (const std::string& text : texts) bytes += Text(text);
  return Array(GgufType::string, texts.size(), bytes);
}
inline std::string Integers(const std::vector<int32_t>& values) {
  std::string bytes;
  for (const int32_t value : values) bytes += Raw(value);
  return Array(GgufType::i32, values.size(), bytes);
}

// A GGUF file in pieces, each of which a test can bend.
struct File {
  struct Key {
    std::string name, value;  // the value with its type
  };
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dims;
    uint32_t type = 0;  // F32
    std::string data;
    std::optional<uint64_t> offset;  // of the data; otherwise behind that of the tensor before
    std::optional<uint32_t> n_dims;
  };
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> n_tensors, n_keys;
  std::vector<Key> keys;
  std::vector<Tensor> tensors;
  uint64_t alignment = 32;

  void Set(const std::string& name, const std::string& value) {
    for (Key& key : keys)
      if (key.name == name) return void(key.value = value);
    keys.push_back({name, value});
  }
  void Drop(const std::string& name) {
    std::erase_if(keys, [&](const Key& key) { return key.name == name; });
    std::erase_if(tensors, [&](const Tensor& tensor) { return tensor.name == name; });
  }
  Tensor& At(const std::string& name) {
    for (Tensor& tensor : tensors)
      if (tensor.name == name) return tensor;
    throw std::out_of_range(name);
  }
  void Add(const std::string& name, const std::vector<uint64_t>& dims) {
    uint64_t n = 1;
    for (const uint64_t dim : dims) n *= dim;
    std::string data;
    for (uint64_t i = 0; i < n; ++i)
      data += Raw(std::sin(static_cast<float>(i + tensors.size()) + 1));
    tensors.push_back({name, dims, 0, data, {}, {}});
  }

  Bytes Build() const {
    std::string out = magic + Raw(version) + Raw(n_tensors.value_or(tensors.size())) +
                      Raw(n_keys.value_or(keys.size()));
    for (const Key& key : keys) out += Text(key.name) + key.value;
    std::string data;
    for (const Tensor& t : tensors) {
      out += Text(t.name) + Raw(t.n_dims.value_or(static_cast<uint32_t>(t.dims.size())));
      for (const uint64_t dim : t.dims) out += Raw(dim);
      out += Raw(t.type) + Raw(t.offset.value_or(data.size()));
      data += Padded(t.data);
    }
    out = Padded(out) + data;
    return {out.begin(), out.end()};
  }
  std::string Padded(std::string bytes) const {
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
    return bytes;
  }
};

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kMerges = "tokenizer.ggml.merges";

// 256 bytes, the two tokens that `merges` makes, one special.
inline Names MicroTokens() {
  Names tokens;
  for (int byte = 0; byte < 256; ++byte)
    tokens.push_back(BytesToAlphabet(std::string(1, static_cast<char>(byte))));
  tokens.insert(tokens.end(), {"is", "his", "<|im_end|>"});
  return tokens;
}

// The smallest complete model: one layer, hidden 8, two heads on one KV head, everything F32.
inline File Micro() {
  File f;
  f.Set("general.architecture", String("qwen2"));
  f.Set("qwen2.block_count", U32(1));
  f.Set("qwen2.context_length", U32(64));
  f.Set("qwen2.embedding_length", U32(8));
  f.Set("qwen2.feed_forward_length", U32(16));
  f.Set("qwen2.attention.head_count", U32(2));
  f.Set("qwen2.attention.head_count_kv", U32(1));
  f.Set("qwen2.rope.freq_base", F32(1e6f));
  f.Set("qwen2.attention.layer_norm_rms_epsilon", F32(1e-6f));
  const Names tokens = MicroTokens();
  std::vector<int32_t> types(tokens.size(), 1);
  types.back() = 3;
  f.Set(kTokens, Strings(tokens));
  f.Set(kTypes, Integers(types));
  f.Set(kMerges, Strings({"i s", "h is"}));
  f.Add("token_embd.weight", {8, tokens.size()});
  f.Add("blk.0.attn_norm.weight", {8});
  f.Add("blk.0.attn_q.weight", {8, 8});
  f.Add("blk.0.attn_q.bias", {8});
  f.Add("blk.0.attn_k.weight", {8, 4});
  f.Add("blk.0.attn_k.bias", {4});
  f.Add("blk.0.attn_v.weight", {8, 4});
  f.Add("blk.0.attn_v.bias", {4});
  f.Add("blk.0.attn_output.weight", {8, 8});
  f.Add("blk.0.ffn_norm.weight", {8});
  f.Add("blk.0.ffn_gate.weight", {8, 16});
  f.Add("blk.0.ffn_up.weight", {8, 16});
  f.Add("blk.0.ffn_down.weight", {16, 8});
  f.Add("output_norm.weight", {8});
  f.Add("output.weight", {8, tokens.size()});
  return f;
}

}  // namespace lab::damaged_test
