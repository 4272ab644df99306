#pragma once
#include "kernels/quantize.h"

namespace lab {

/// Op gate_up, both FFN input projections in one pass over the activations:
///   gate[t, r] = sum_c w_gate[r, c] x[t, c],   up[t, r] = sum_c w_up[r, c] x[t, c]
template <class T>
struct GateUpArgs {
  WeightView w_gate, w_up;       ///< [rows, cols] both; the types may differ
  const T* x;                    ///< [tokens, cols]
  QuantizedView xq_gate, xq_up;  ///< x as integers for each weight, as in MatvecArgs
  T* gate;                       ///< [tokens, rows], y_stride values from token to token
  T* up;                         ///< [tokens, rows], likewise; gate, up and x do not overlap
  size_t tokens, y_stride;

  static constexpr size_t kSliceGrain = kRowsSliceGrain;
  size_t Items() const { return w_gate.rows; }
  size_t Work() const { return 2 * tokens * w_gate.rows * w_gate.cols; }
  size_t Bytes() const {
    return w_gate.bytes() + w_up.bytes() + ActivationBytes<T>(xq_gate, tokens, w_gate.cols) +
           2 * tokens * w_gate.rows * sizeof(T);
  }
  GateUpArgs Slice(size_t begin, size_t end) const {
    GateUpArgs s = *this;
    s.w_gate = w_gate.Rows(begin, end);
    s.w_up = w_up.Rows(begin, end);
    s.gate += begin;
    s.up += begin;
    return s;
  }
};

/// Whether both matrices have the one type for which the SIMD rows are compiled side by side, that
/// of these matrices in every Q4_K file. Others run as two matvecs, with the same bits: an instance
/// for each type made the two slowest files of the build four times slower.
template <class T>
bool IsQ4kPair(const GateUpArgs<T>& a) {
  return a.w_gate.type == BlockType::Q4_K && a.w_up.type == BlockType::Q4_K;
}

}  // namespace lab
