#include "lab/stats.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lab/row_sums.h"

namespace lab {
namespace {

void SetNaN(Stats& s) {
  s.min = s.max = s.mean = s.std = s.rms = s.absmax = s.l2 = s.crest =
      std::numeric_limits<double>::quiet_NaN();
}

// What follows from the mean and the sums.
void Finish(Stats& s, double squares, double deviations) {
  const auto count = static_cast<double>(s.n);
  s.std = std::sqrt(deviations / count);
  s.rms = std::sqrt(squares / count);
  s.l2 = std::sqrt(squares);
  s.crest = s.rms > 0 ? s.absmax / s.rms : 0;
}
template <class T>
void Finish(Stats& s, const T* values, double sum, double squares) {
  s.mean = sum / static_cast<double>(s.n);
  Finish(s, squares, SumDeviations(values, s.n, s.mean));
}

// Value by value, for rows with NaN or Inf in them.
template <class T>
Stats CountNonFinite(const T* values, size_t n) {
  Stats s;
  s.n = n;
  s.min = s.max = values[0];
  double sum = 0, squares = 0;
  size_t first_nan = n;
  for (size_t i = 0; i < n; ++i) {
    const double x = values[i];
    if (std::isnan(x)) {
      ++s.nan;
      first_nan = std::min(first_nan, i);
      continue;
    }
    s.inf += std::isinf(x);
    s.zeros += x == 0;
    s.min = std::min(s.min, x);
    s.max = std::max(s.max, x);
    sum += x;
    squares += x * x;
    if (std::abs(x) > s.absmax) s.absmax = std::abs(x), s.argmax = i;
  }
  if (s.nan) {
    SetNaN(s);
    s.argmax = first_nan;
    return s;
  }
  Finish(s, values, sum, squares);
  return s;
}

}  // namespace

template <class T>
Stats ComputeStats(const T* values, size_t n) {
  Stats s;
  s.n = n;
  if (n == 0) return s;
  const RowSums sums = SumRow(values, n);
  if (!std::isfinite(sums.squares)) return CountNonFinite(values, n);
  s.zeros = sums.zeros;
  s.min = sums.min;
  s.max = sums.max;
  s.absmax = std::max(std::abs(s.min), std::abs(s.max));
  s.argmax = FindMagnitude(values, n, s.absmax);
  Finish(s, values, sums.sum, sums.squares);
  return s;
}

template Stats ComputeStats(const float* values, size_t n);
template Stats ComputeStats(const double* values, size_t n);

Stats StatsOf(std::span<const TapSums> pieces) {
  Stats s;
  if (pieces.empty()) return s;
  s.min = s.max = pieces[0].min;
  s.absmax = -1;
  double sum = 0, squares = 0;
  for (const TapSums& piece : pieces) {
    const double min = piece.min, max = piece.max;
    const double absmax = piece.nan ? INFINITY : std::max(std::abs(min), std::abs(max));
    if (s.nan == 0 && (piece.nan || absmax > s.absmax)) s.absmax = absmax, s.argmax = piece.argmax;
    s.n += piece.n;
    s.nan += piece.nan;
    s.inf += piece.inf;
    s.zeros += piece.zeros;
    s.min = std::min(s.min, min);
    s.max = std::max(s.max, max);
    sum += piece.sum;
    squares += piece.squares;
  }
  if (s.nan) {
    SetNaN(s);
    return s;
  }
  s.mean = sum / static_cast<double>(s.n);
  double deviations = 0;
  for (const TapSums& piece : pieces) {
    const double shift = piece.sum / piece.n - s.mean;
    deviations += piece.deviations + piece.n * (shift * shift);
  }
  Finish(s, squares, deviations);
  return s;
}

Stats Pool(std::span<const Stats* const> rows) {
  Stats pooled;
  double sum = 0, squares = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Stats& row = *rows[i];
    pooled.nan += row.nan;
    pooled.inf += row.inf;
    pooled.zeros += row.zeros;
    pooled.min = pooled.n ? std::min(pooled.min, row.min) : row.min;
    pooled.max = pooled.n ? std::max(pooled.max, row.max) : row.max;
    pooled.n += row.n;
    sum += static_cast<double>(row.n) * row.mean;
    squares += row.l2 * row.l2;
    // "not at most" lets a NaN row through, and it stays.
    if (!(row.absmax <= pooled.absmax) && !std::isnan(pooled.absmax))
      pooled.absmax = row.absmax, pooled.argmax = i;
  }
  if (pooled.n == 0) return pooled;
  if (pooled.nan) {
    SetNaN(pooled);
    return pooled;
  }
  const auto count = static_cast<double>(pooled.n);
  pooled.mean = sum / count;
  double deviations = 0;
  for (const Stats* row : rows) {
    const double shift = row->mean - pooled.mean;
    deviations += static_cast<double>(row->n) * (row->std * row->std + shift * shift);
  }
  pooled.std = std::sqrt(deviations / count);
  pooled.rms = std::sqrt(squares / count);
  pooled.l2 = std::sqrt(squares);
  pooled.crest = pooled.rms > 0 ? pooled.absmax / pooled.rms : 0;
  return pooled;
}

}  // namespace lab
