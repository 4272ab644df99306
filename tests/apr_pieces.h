#pragma once
// APR v2 files written in pieces, each of which a test can bend. Written from the format's
// description: shares no code with the reader.
#include <nlohmann/json.hpp>

#include "tests/gguf_pieces.h"

namespace lab::damaged_test {

/// CRC-32/IEEE, a bit at a time.
inline uint32_t SlowCrc(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char c : bytes) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  return ~crc;
}

struct AprFile {
  struct Tensor {
    std::string name;
    uint8_t code = 0;  // F32
    std::vector<uint64_t> dims;
    std::string data;
    std::optional<uint64_t> offset, size;
    std::optional<uint8_t> n_dims;
  };
  std::string magic = std::string("APR\0", 4);
  uint8_t major = 2;
  uint16_t flags = 0x0400;
  nlohmann::json metadata = nlohmann::json::object();
  std::optional<std::string> metadata_text;
  std::vector<Tensor> tensors;
  std::optional<uint32_t> n_tensors, metadata_size;
  std::optional<uint64_t> metadata_offset, index_offset, data_offset;
  bool right_crc = true, footer = true;
  std::string tail;  // behind everything

  Tensor& At(const std::string& name) {
    for (Tensor& tensor : tensors)
      if (tensor.name == name) return tensor;
    throw std::out_of_range(name);
  }
  void Drop(const std::string& name) {
    std::erase_if(tensors, [&](const Tensor& t) { return t.name == name; });
  }

  static std::string Padded(std::string bytes) {
    bytes.resize((bytes.size() + 63) / 64 * 64);
    return bytes;
  }

  Bytes Build() const {
    const std::string meta = metadata_text.value_or(metadata.dump());
    std::string index, data;
    for (const Tensor& t : tensors) {
      index += Raw(static_cast<uint16_t>(t.name.size())) + t.name + Raw(t.code) +
               Raw(t.n_dims.value_or(static_cast<uint8_t>(t.dims.size())));
      for (const uint64_t dim : t.dims) index += Raw(dim);
      index += Raw(t.offset.value_or(data.size())) + Raw(t.size.value_or(t.data.size()));
      data += Padded(t.data);
    }
    const uint64_t index_at = 64 + Padded(meta).size(), data_at = index_at + Padded(index).size();
    std::string header = magic + Raw(major) + Raw(uint8_t{0}) + Raw(flags) +
                         Raw(n_tensors.value_or(static_cast<uint32_t>(tensors.size()))) +
                         Raw(metadata_offset.value_or(64)) +
                         Raw(metadata_size.value_or(static_cast<uint32_t>(meta.size()))) +
                         Raw(index_offset.value_or(index_at)) + Raw(data_offset.value_or(data_at));
    const std::string reserved(20, '\0');
    header += Raw(SlowCrc(header + reserved) ^ (right_crc ? 0 : 1)) + reserved;
    std::string out = header + Padded(meta) + Padded(index) + data;
    if (footer) out += Raw(SlowCrc(out));
    out += tail;
    return {out.begin(), out.end()};
  }
};

inline std::vector<std::pair<std::string, std::string>> MicroTensorNames() {
  const std::string gguf = "blk.0.", hf = "model.layers.0.";
  return {{"token_embd.weight", "model.embed_tokens.weight"},
          {gguf + "attn_norm.weight", hf + "input_layernorm.weight"},
          {gguf + "attn_q.weight", hf + "self_attn.q_proj.weight"},
          {gguf + "attn_q.bias", hf + "self_attn.q_proj.bias"},
          {gguf + "attn_k.weight", hf + "self_attn.k_proj.weight"},
          {gguf + "attn_k.bias", hf + "self_attn.k_proj.bias"},
          {gguf + "attn_v.weight", hf + "self_attn.v_proj.weight"},
          {gguf + "attn_v.bias", hf + "self_attn.v_proj.bias"},
          {gguf + "attn_output.weight", hf + "self_attn.o_proj.weight"},
          {gguf + "ffn_norm.weight", hf + "post_attention_layernorm.weight"},
          {gguf + "ffn_gate.weight", hf + "mlp.gate_proj.weight"},
          {gguf + "ffn_up.weight", hf + "mlp.up_proj.weight"},
          {gguf + "ffn_down.weight", hf + "mlp.down_proj.weight"},
          {"output_norm.weight", "model.norm.weight"},
          {"output.weight", "lm_head.weight"}};
}

inline void SortByName(AprFile& apr) {
  std::sort(apr.tensors.begin(), apr.tensors.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
}

/// Micro() as `apr import` writes it: Hugging Face's names, row length last.
inline AprFile MicroApr() {
  AprFile apr;
  File micro = Micro();
  for (const auto& [gguf, hf] : MicroTensorNames()) {
    const File::Tensor& t = micro.At(gguf);
    apr.tensors.push_back({hf, 0, {t.dims.rbegin(), t.dims.rend()}, t.data, {}, {}, {}});
  }
  SortByName(apr);
  std::vector<int> types(MicroTokens().size(), 1);
  types.back() = 3;
  apr.metadata = {{"model_type", "qwen2"},
                  {"license", nullptr},
                  {"architecture", "qwen2"},
                  {"num_layers", 1},
                  {"max_position_embeddings", 64},
                  {"hidden_size", 8},
                  {"intermediate_size", 16},
                  {"num_heads", 2},
                  {"num_kv_heads", 1},
                  {"vocab_size", MicroTokens().size()},
                  {"rope_theta", 1000000.0},
                  {"rope_type", 2},
                  {"rms_norm_eps", 1e-6},
                  {"tensor_shapes", {{"model.norm.weight", {8}}}},
                  {"tokenizer.vocabulary", MicroTokens()},
                  {"tokenizer.token_type", types},
                  {"tokenizer.merges", {"i s", "h is"}}};
  return apr;
}

/// Micro() as the converter of GGUF files writes it: GGUF's names and order of dimensions, other
/// metadata names, no token types, no footer.
inline AprFile MicroAprOfGguf() {
  AprFile apr = MicroApr();
  File micro = Micro();
  for (AprFile::Tensor& t : apr.tensors)
    for (const auto& [gguf, hf] : MicroTensorNames())
      if (t.name == hf) {
        t.name = gguf;
        t.dims = micro.At(gguf).dims;
        break;
      }
  SortByName(apr);
  apr.flags = 0x0020;
  apr.footer = false;
  nlohmann::json& m = apr.metadata;
  m["model_type"] = "transformer_lm_q4k";
  for (const auto& [from, to] : {std::pair{"num_layers", "num_hidden_layers"},
                                 {"num_heads", "num_attention_heads"},
                                 {"num_kv_heads", "num_key_value_heads"}})
    m[to] = m[from], m.erase(from);
  m.erase("tokenizer.token_type");
  m.erase("tensor_shapes");
  m["quantization"] = {{"quant_type", "Q4_K"}, {"bits", 4}};
  return apr;
}

/// That both are the same model: sizes, every bit of every weight, the ids of texts.
inline void ExpectSameModel(const Qwen2& a, const Qwen2& b) {
  const Qwen2Config &x = a.config, &y = b.config;
  EXPECT_EQ(std::tie(x.layers, x.context_length, x.hidden, x.ffn, x.heads, x.kv_heads, x.head_dim,
                     x.vocab, x.rope_base, x.rms_eps),
            std::tie(y.layers, y.context_length, y.hidden, y.ffn, y.heads, y.kv_heads, y.head_dim,
                     y.vocab, y.rope_base, y.rms_eps));
  const auto equal = [](const WeightView& v, const WeightView& w) {
    return v.type == w.type && v.rows == w.rows && v.cols == w.cols &&
           std::memcmp(v.data, w.data, v.bytes()) == 0;
  };
  EXPECT_TRUE(equal(a.token_embd, b.token_embd));
  EXPECT_TRUE(equal(a.output, b.output));
  EXPECT_EQ(a.output_norm, b.output_norm);
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (size_t i = 0; i < a.layers.size(); ++i) {
    const Qwen2Layer &l = a.layers[i], &m = b.layers[i];
    EXPECT_TRUE(equal(l.attn_q, m.attn_q) && equal(l.attn_k, m.attn_k) &&
                equal(l.attn_v, m.attn_v) && equal(l.attn_output, m.attn_output) &&
                equal(l.ffn_gate, m.ffn_gate) && equal(l.ffn_up, m.ffn_up) &&
                equal(l.ffn_down, m.ffn_down));
    EXPECT_EQ(std::tie(l.attn_norm, l.q_bias, l.k_bias, l.v_bias, l.ffn_norm),
              std::tie(m.attn_norm, m.q_bias, m.k_bias, m.v_bias, m.ffn_norm));
  }
  const Tokenizer tokens_a(*a.source), tokens_b(*b.source);
  for (const char* text : {"What is 2+2?<|im_end|>", "this", "his\n is", "[PAD7]"})
    EXPECT_EQ(tokens_a.Encode(text), tokens_b.Encode(text)) << text;
}

}  // namespace lab::damaged_test
