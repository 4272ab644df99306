#pragma once
// Whether a model that was read can be used: its weights lie in the bytes of its file.
#include "model/qwen2.h"

namespace lab {

inline bool IsInside(const WeightView& w, std::span<const uint8_t> file) {
  const auto offset = static_cast<uint64_t>(w.data - file.data());
  return w.data && offset < file.size() && w.bytes() <= file.size() - offset;
}

/// Every matrix of the model.
inline bool ViewsInside(const Qwen2& model) {
  const std::span<const uint8_t> file = model.source->file().bytes();
  bool inside = IsInside(model.token_embd, file) && IsInside(model.output, file);
  for (const Qwen2Layer& l : model.layers)
    for (const WeightView& w :
         {l.attn_q, l.attn_k, l.attn_v, l.attn_output, l.ffn_gate, l.ffn_up, l.ffn_down})
      inside &= IsInside(w, file);
  return inside;
}

}  // namespace lab
