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

  size_t Items() const { return w_gate.rows; }
  size_t Work() const { return 2 * tokens * w_gate.rows * w_gate.cols; }
  GateUpArgs Slice(size_t begin, size_t end) const {
    GateUpArgs s = *this;
    s.w_gate = w_gate.Rows(begin, end);
    s.w_up = w_up.Rows(begin, end);
    s.gate += begin;
    s.up += begin;
    return s;
  }
};

}  // namespace lab
