#pragma once
// How far two tensors of weights are apart, value by value and byte by byte. All sums are formed in
// float64 over parts of 65536 values that are added up in order: threads change no bit.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/weight_file.h"

namespace lab {

/// Of n values a against n values b.
struct ValueDifference {
  double aa = 0, bb = 0, ab = 0;  ///< sums of a^2, b^2, a b
  double dd = 0;                  ///< sum of (a - b)^2
  double max_abs = 0;             ///< largest |a - b|; NaN if any is
  uint64_t n = 0;
  uint64_t at = 0;  ///< index in a of that largest, or of the first NaN

  /// ab / sqrt(aa bb); 1 when both are all zeros, 0 when one is.
  double Cosine() const;
  /// sqrt(dd / n)
  double Rms() const;
};

/// Which value of b belongs to value [r, c] of a, which has rows r and columns c.
enum class Order {
  same,       ///< the one at the same place in storage order
  transposed  ///< the one at c * rows + r: b holds the transposed matrix, whatever its shape says
};

/// Compares pairs of tensors with equal element counts that lab can decode (DequantFlat).
struct ComparePair {
  const WeightTensor *a, *b;
  Order order = Order::same;
};
std::vector<ValueDifference> CompareValues(std::span<const ComparePair> pairs, int threads);

struct ByteDifference {
  uint64_t differing = 0;
  uint64_t first = 0;  ///< offset of the first one within the tensors
};
/// Compares the bytes of pairs of tensors that have equally many.
std::vector<ByteDifference> CompareBytes(std::span<const ComparePair> pairs, int threads);

/// The values of `t` at 512 places spread over it (fewer if it is smaller), the same places for
/// every tensor of that size. Order::transposed: at the places where the transposed matrix holds
/// them, if its rows have `cols` values.
std::vector<float> Sample(const WeightTensor& t, Order order, uint64_t cols);

/// "row 3, block 5 (columns 1280 to 1535), byte 17 (qs)" for byte `offset` of a tensor.
std::string DescribeByte(const WeightTensor& t, uint64_t offset);

}  // namespace lab
