#pragma once
#include <cstddef>
#include <cstdint>

namespace lab {

/// What the statistics of a row are made of (StatsOf in lab/stats.h), for one piece of it: at most
/// kPiece neighbouring values, in float64 from the values as stored. A NaN makes the three sums
/// NaN; an Inf, without one, makes the squares infinite, the sum infinite or NaN, and the
/// deviations NaN.
struct TapSums {
  static constexpr size_t kPiece = 4096;
  static constexpr size_t Pieces(size_t n) { return (n + kPiece - 1) / kPiece; }

  double sum, squares;
  double deviations;  ///< sum (x - mean)^2 from the piece's own mean, sum / n
  float min, max;     ///< of what is no NaN; Inf and -Inf where everything is
  uint64_t argmax;    ///< index in the row: the first NaN, else the first of the largest magnitude
  uint32_t n, nan, inf, zeros;

  bool operator==(const TapSums&) const = default;
};

/// sums[t, p] are those of piece p of token t's row. A step of a pass on a device, no row of
/// kernels.def. The order of the additions is that of kernels/tap_sums_cuda.cu whatever the GPU, so
/// the bits are those of the values alone.
struct TapSumsArgs {
  const float* values;       ///< [tokens, n], `stride` >= n values from token to token
  size_t tokens, n, stride;  ///< at most 65535 tokens, and n below 2^32
  TapSums* sums;             ///< [tokens, TapSums::Pieces(n)], apart from the values
};

}  // namespace lab
