#pragma once
#include "kernels/quantize.h"

namespace lab {

/// Ops matvec (q, k, v, o, lm_head) and down_proj:
///   y[t, r] = sum_c w[r, c] x[t, c] + bias[r]
/// A row reads each weight once, whatever the number of tokens.
template <class T>
struct MatvecArgs {
  WeightView w;       ///< [rows, cols], any block type
  const float* bias;  ///< [rows], or null
  const T* x;         ///< [tokens, cols]
  /// x as integers, for contracts q8 and q16 with a quantised weight type: block is
  /// ActivationBlock(w.type), and sum_c runs over w[r, c] scale q; x is then not read. Else empty.
  QuantizedView xq;
  T* y;              ///< [tokens, rows] with y_stride values from token to token; not x
  T* y_before_bias;  ///< like y, the sum alone, from the same arithmetic; or null
  size_t tokens, y_stride;

  static constexpr size_t kSliceGrain = kRowsSliceGrain;
  size_t Items() const { return w.rows; }
  size_t Work() const { return tokens * w.rows * w.cols; }
  size_t Bytes() const {
    return w.bytes() + ActivationBytes<T>(xq, tokens, w.cols) + tokens * w.rows * sizeof(T);
  }
  MatvecArgs Slice(size_t begin, size_t end) const {
    MatvecArgs s = *this;
    s.w = w.Rows(begin, end);
    s.y += begin;
    if (bias) s.bias += begin;
    if (y_before_bias) s.y_before_bias += begin;
    return s;
  }
};

}  // namespace lab
