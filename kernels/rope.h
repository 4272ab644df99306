#pragma once
#include <cstddef>

namespace lab {

/// Op rope (Su et al. 2021, halves rotated as in GPT-NeoX). For each head and i < head_dim/2, with
/// a = x[i], b = x[i + head_dim/2], c = cos[t, i], s = sin[t, i]:
///   y[i] = a c - b s,   y[i + head_dim/2] = b c + a s
/// cos and sin come from the host, where the angle position * base^(-2i/head_dim) is formed in
/// float64; T double keeps them in double, T float has them rounded once.
template <class T>
struct RopeArgs {
  const T* x;    ///< [tokens, heads, head_dim], stride values from token to token
  T* y;          ///< same shape and stride; may be x
  const T* cos;  ///< [tokens, head_dim/2]
  const T* sin;  ///< [tokens, head_dim/2]
  size_t tokens, heads, head_dim, stride;
  size_t first_position = 0;  ///< what the tables were made of; rows read the tables alone
  float base = 0;

  size_t Items() const { return tokens; }
  size_t Work() const { return 2 * tokens * heads * head_dim; }
  size_t Bytes() const { return tokens * (2 * heads + 1) * head_dim * sizeof(T); }
  RopeArgs Slice(size_t begin, size_t end) const {
    const size_t half = head_dim / 2;
    return {x + begin * stride,
            y + begin * stride,
            cos + begin * half,
            sin + begin * half,
            end - begin,
            heads,
            head_dim,
            stride,
            first_position + begin,
            base};
  }
};

}  // namespace lab
