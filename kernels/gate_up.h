#pragma once
#include "kernels/block_types.h"

namespace lab {

/// Op gate_up, both FFN input projections in one pass over the activations:
///   gate[t, r] = sum_c w_gate[r, c] x[t, c],   up[t, r] = sum_c w_up[r, c] x[t, c]
template <class T>
struct GateUpArgs {
  WeightView w_gate, w_up;  ///< [rows, cols] both; the types may differ
  const T* x;               ///< [tokens, cols]
  T* gate;                  ///< [tokens, rows], y_stride values from token to token
  T* up;                    ///< [tokens, rows], likewise; gate, up and x do not overlap
  size_t tokens, y_stride;

  size_t Items() const { return w_gate.rows; }
  size_t Work() const { return 2 * tokens * w_gate.rows * w_gate.cols; }
  GateUpArgs Slice(size_t begin, size_t end) const {
    return {w_gate.Rows(begin, end),
            w_up.Rows(begin, end),
            x,
            gate + begin,
            up + begin,
            tokens,
            y_stride};
  }
};

}  // namespace lab
