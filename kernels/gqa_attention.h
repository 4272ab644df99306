#pragma once
#include <cstddef>
#include <cstdint>

namespace lab {

/// Op gqa_attention: causal attention with grouped queries (Ainslie et al. 2023). Query head h
/// reads KV head h / (heads / kv_heads). With n = first_position + t + 1 positions visible to token
/// t:
///   s[j] = q[t, h] . k[j, kv(h)] / sqrt(head_dim)      j < n
///   y[t, h] = sum_j softmax(s)[j] v[j, kv(h)]
template <class T>
struct GqaAttentionArgs {
  const T* q;  ///< [tokens, heads, head_dim], q_stride values from token to token
  const T*
      k;  ///< [first_position + tokens, kv_heads, head_dim], kv_stride from position to position
  const T* v;  ///< as k
  const uint16_t*
      k16;  ///< KV type f16: half floats of the same shape, read instead of k; else null
  const uint16_t* v16;
  T* y;  ///< [tokens, heads, head_dim], y_stride from token to token; overlaps no input
  size_t tokens, first_position;
  size_t heads, group, head_dim;  ///< group = heads / kv_heads of the whole op
  size_t first_head;              ///< q and y start at this head (slices); k and v never move
  size_t q_stride, kv_stride, y_stride;
  /// Where rows on a device find first_position, since a graph is replayed with the arguments it
  /// was captured with; or null.
  const size_t* first_position_at = nullptr;

  size_t Items() const { return heads; }
  size_t Work() const { return 2 * tokens * (first_position + tokens) * heads * head_dim; }
  size_t Bytes() const {
    const size_t kv = 2 * (first_position + tokens) * (heads / group) * head_dim;
    return kv * (k16 ? sizeof(uint16_t) : sizeof(T)) + 2 * tokens * heads * head_dim * sizeof(T);
  }
  GqaAttentionArgs Slice(size_t begin, size_t end) const {
    GqaAttentionArgs s = *this;
    s.q += begin * head_dim;
    s.y += begin * head_dim;
    s.heads = end - begin;
    s.first_head += begin;
    return s;
  }
};

}  // namespace lab
