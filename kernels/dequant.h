#pragma once
#include "kernels/block_types.h"

namespace lab {

/// Ops q4k_dequant and q6k_dequant: y[r, c] = the weight at row r, column c, as float32 arithmetic
/// forms it (d*sc and dmin*m exact, one rounding in the subtraction), bit for bit what the `gguf`
/// Python package gives. Q4_K: w.type == Q4_K; Q6_K likewise.
template <class T>
struct DequantArgs {
  WeightView w;
  T* y;  ///< [w.rows, w.cols], must not overlap w

  static constexpr size_t kSliceGrain = kRowsSliceGrain;
  size_t Items() const { return w.rows; }
  size_t Work() const { return w.rows * w.cols; }
  size_t Bytes() const { return w.bytes() + w.rows * w.cols * sizeof(T); }
  DequantArgs Slice(size_t begin, size_t end) const {
    return {w.Rows(begin, end), y + begin * w.cols};
  }
};

}  // namespace lab
