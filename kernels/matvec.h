#pragma once
#include "kernels/block_types.h"

namespace lab {

/// Ops matvec (q, k, v, o, lm_head) and down_proj:
///   y[t, r] = sum_c w[r, c] x[t, c] + bias[r]
/// A row reads each weight once, whatever the number of tokens.
template <class T>
struct MatvecArgs {
  WeightView w;       ///< [rows, cols], any block type
  const float* bias;  ///< [rows], or null
  const T* x;         ///< [tokens, cols]
  T* y;               ///< [tokens, rows] with y_stride values from token to token; not x
  T* y_before_bias;   ///< like y, the sum alone, from the same arithmetic; or null
  size_t tokens, y_stride;

  size_t Items() const { return w.rows; }
  size_t Work() const { return tokens * w.rows * w.cols; }
  MatvecArgs Slice(size_t begin, size_t end) const {
    return {w.Rows(begin, end),
            bias ? bias + begin : nullptr,
            x,
            y + begin,
            y_before_bias ? y_before_bias + begin : nullptr,
            tokens,
            y_stride};
  }
};

}  // namespace lab
