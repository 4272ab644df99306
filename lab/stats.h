#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/tap_sums.h"

namespace lab {

/// Figures of one row of values (a tap of one token), summed in float64 over the values as
/// computed. A NaN makes every figure but the counts NaN, and argmax is the first NaN: nobody can
/// overlook it.
struct Stats {
  uint64_t n = 0, nan = 0, inf = 0, zeros = 0;
  double min = 0, max = 0, mean = 0;
  double std = 0;  ///< of the population: sqrt(mean((x - mean)^2))
  double rms = 0, absmax = 0;
  uint64_t argmax = 0;  ///< index of the largest magnitude, the first of equals
  double l2 = 0;
  double crest = 0;  ///< absmax / rms, 0 for zeros; at most sqrt(n)

  bool finite() const { return nan == 0 && inf == 0; }
  /// A massive activation (Sun et al. 2024): a magnitude of at least 100 that carries at least a
  /// quarter of the row's energy. It is the model's own, and it rules every pooled figure.
  bool massive() const { return absmax >= 100 && 4 * absmax * absmax >= l2 * l2; }
};

template <class T>
Stats ComputeStats(const T* values, size_t n);

/// The same figures from the sums of all pieces of a row, in their order: by the same rules, but
/// the sums behind mean, std, rms and l2 were formed in another order.
Stats StatsOf(std::span<const TapSums> pieces);

/// The figures of several rows as if they were one, from their own figures. argmax is the index of
/// the row that holds the largest magnitude.
Stats Pool(std::span<const Stats* const> rows);

}  // namespace lab
