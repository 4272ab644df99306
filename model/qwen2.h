#pragma once
// A qwen2 model: its configuration and its weights, checked against each other before any
// arithmetic. Weights stay where the file has them; norms and biases (small) are unpacked.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/block_types.h"
#include "lab/aligned.h"
#include "model/weight_file.h"

namespace lab {

struct Qwen2Config {
  size_t layers, context_length;
  size_t hidden;  ///< width of the residual stream
  size_t ffn;     ///< width of the feed-forward part
  size_t heads, kv_heads, head_dim;
  size_t vocab;
  float rope_base, rms_eps;
  bool tied_output;  ///< lm_head reads token_embd

  size_t q_dim() const { return heads * head_dim; }
  size_t kv_dim() const { return kv_heads * head_dim; }
  /// q, k and v of one token side by side.
  size_t qkv_dim() const { return q_dim() + 2 * kv_dim(); }
};

struct Qwen2Layer {
  std::vector<float> attn_norm;               // [hidden]
  WeightView attn_q, attn_k, attn_v;          // [q_dim | kv_dim | kv_dim, hidden]
  std::vector<float> q_bias, k_bias, v_bias;  // [q_dim], [kv_dim], [kv_dim]
  WeightView attn_output;                     // [hidden, q_dim]
  std::vector<float> ffn_norm;                // [hidden]
  WeightView ffn_gate, ffn_up;                // [ffn, hidden]
  WeightView ffn_down;                        // [hidden, ffn]
};

struct Qwen2 {
  std::unique_ptr<const WeightFile> source;  ///< owns the bytes that the views point into
  Qwen2Config config;
  WeightView token_embd;  // [vocab, hidden]
  std::vector<Qwen2Layer> layers;
  std::vector<float> output_norm;  // [hidden]
  WeightView output;               // [vocab, hidden]; token_embd when tied
  AlignedBytes rows8;              ///< what the views' rows8 point into; empty unless repacked

  const std::string& name() const { return source->file().name(); }
  /// Weight bytes that one decoded token reads: everything but the embedding table, of which it
  /// reads one row (all of it when it is the output matrix too).
  uint64_t BytesPerToken() const;
};

/// Builds the model from a file of weights. Throws Error that lists everything that is wrong with
/// it, in the file's own names.
Qwen2 LoadQwen2(WeightFile file);

/// From a file path or a synthetic shape.
inline Qwen2 OpenModel(const std::string& model) {
  return LoadQwen2(ReadWeightFile(OpenModelBytes(model)));
}

/// The model to use when --model is absent: $LAB_MODEL, the fetched file, `tiny`. `why` says which
/// and is meant for the log.
std::string DefaultModel(std::string* why);

}  // namespace lab
