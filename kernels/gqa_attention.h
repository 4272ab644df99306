#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/kv_layout.h"

namespace lab {

/// How rows on a device take positions: spans of so many are summed up on their own and merged in
/// order, whatever block of threads has them. Where each has one of its own, what they come to lies
/// in scratch in between: for each head and span a value of every thread, the largest score and the
/// sum of the weights.
struct AttentionSpans {
  static constexpr size_t kPositions = 128, kThreads = 256, kValues = kThreads + 2;
  static constexpr size_t Count(size_t positions) {
    return (positions + kPositions - 1) / kPositions;
  }
  /// Where a span of a head lies, if there is room for `spans` of each head.
  static constexpr size_t At(size_t head, size_t span, size_t spans) {
    return (head * spans + span) * kValues;
  }
};

/// Op gqa_attention: causal attention with grouped queries (Ainslie et al. 2023). Query head h
/// reads KV head h / (heads / kv_heads). With n = first_position + t + 1 positions visible to token
/// t:
///   s[j] = q[t, h] . k[j, kv(h)] / sqrt(head_dim)      j < n
///   y[t, h] = sum_j softmax(s)[j] v[j, kv(h)]
template <class T>
struct GqaAttentionArgs : KvLayout {
  const T* q;  ///< [tokens, heads, head_dim], q_stride values from token to token
  const T* k;  ///< keys of first_position + tokens positions, at KeyOffset
  const T* v;  ///< values of as many, at ValueOffset
  const uint16_t*
      k16;  ///< KV type f16: half floats of the same shape, read instead of k; else null
  const uint16_t* v16;
  T* y;  ///< [tokens, heads, head_dim], y_stride from token to token; overlaps no input
  size_t tokens, first_position;
  size_t heads, group, head_dim;  ///< group = heads / kv_heads of the whole op
  size_t first_head;              ///< q and y start at this head (slices); k and v never move
  size_t q_stride, y_stride;
  /// Where rows on a device find first_position, since a graph is replayed with the arguments it
  /// was captured with; or null.
  const size_t* first_position_at = nullptr;
  size_t most_positions = 0;  ///< the cache has room for so many, so a replay sees no more; or 0
  T* scratch = nullptr;       ///< ScratchValues() of a row on a device; overlaps nothing

  /// KV heads [0, kv_heads()) are read.
  size_t kv_heads() const { return (first_head + heads - 1) / group + 1; }
  size_t positions() const { return first_position + tokens; }
  /// For rows on a device. One token has a block of threads for every span and KV head: those of
  /// several tokens are enough for any device.
  size_t Spans() const {
    return AttentionSpans::Count(most_positions > positions() ? most_positions : positions());
  }
  size_t ScratchValues() const {
    return tokens == 1 && Spans() > 1 ? AttentionSpans::At(heads, 0, Spans()) : 0;
  }
  /// Values from the first to the last that may be read of k and of v.
  size_t KeyExtent() const {
    const size_t blocks = (positions() + key_block - 1) / key_block;
    return KeyOffset(kv_heads() - 1, blocks * key_block - 1, head_dim - 1) + 1;
  }
  size_t ValueExtent() const {
    return ValueOffset(kv_heads() - 1, positions() - 1, head_dim - 1) + 1;
  }

  /// The query heads of a KV head read it once for all of them, so many tokens are cut into tokens
  /// and few into heads.
  static constexpr size_t kTokenGrain = 8;
  size_t Items() const { return heads; }
  size_t Work() const { return 2 * tokens * positions() * heads * head_dim; }
  size_t Bytes() const {
    const size_t kv = 2 * positions() * (heads / group) * head_dim;
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
  GqaAttentionArgs SliceTokens(size_t begin, size_t end) const {
    GqaAttentionArgs s = *this;
    s.q += begin * q_stride;
    s.y += begin * y_stride;
    s.first_position += begin;
    s.tokens = end - begin;
    return s;
  }
};

}  // namespace lab
