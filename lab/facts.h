#pragma once
// Two rows of values of which only some facts are known: how far apart are they at least, and at
// most? Everything here is a bound that holds for all rows with these facts.
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "lab/run_record.h"

namespace lab {

/// What is known of one row, ready to be compared.
struct Facts {
  Figures figures;
  std::map<size_t, Figure> values;  ///< by channel
  std::vector<double> row;          ///< all values; empty: not known
  std::optional<Sketch> sketch;
};
/// Of a token's record: the row is read, and n, l2 and rms are filled in where they follow from the
/// others. `kind` is the header's: which std the figures have, if it says so.
Facts FactsOf(const TokenRecord& record, std::optional<StdKind> kind);
Facts FactsOf(const PooledRecord& record, std::optional<StdKind> kind);
Facts FactsOf(std::vector<double> row);

/// The figures of several rows as if they were one. What one of them lacks is absent.
Figures PoolFigures(std::span<const Figures* const> rows);
/// Fills in n, rms, l2, sum and mean where they follow from the others. rms from mean and std: with
/// the std of a sample it needs n; of a std of unknown kind it has both as its rounding.
void Complete(Figures& figures, std::optional<StdKind> kind = StdKind::population);
/// Widens the rounding of a std of unknown kind, so that it may be either; needs n.
void WidenStd(Figures& figures);
/// Changes std from one divisor to the other; needs n.
void ConvertStd(Figures& figures, StdKind from, StdKind to);

/// Stats::massive, where the figures tell.
bool IsMassive(const Figures& figures);

/// What a comparison rests on, weakest first.
enum class Evidence { nothing, statistics, values, sketch, tensors };
std::string_view NameOf(Evidence evidence);

/// ||a - b|| (Euclidean), as far as the facts tell. With n channels, from
///   statistics: ||a - b||^2 >= n ((mean_a - mean_b)^2 + (std_a - std_b)^2), by splitting both into
///     their mean and the rest; >= |l2_a - l2_b|, |absmax_a - absmax_b|, |min_a - min_b|,
///     |max_a - max_b|, |sum_a - sum_b| / sqrt(n)
///   values: >= the root of the sum of the squared differences that are known; a known value also
///     lies between min and max of the other row
///   sketch: the projections' own difference d has d^2 = ||a - b||^2 chi2_64 / 64; bounds hold but
///     for one pair in a million
///   tensors: the distance itself.
/// Every figure is taken at the end of its rounding that brings the rows closest. Where n is
/// unknown on both sides all is in units of sqrt(n) (and absmax, min and max say nothing).
/// A pair of which one is finite and the other is not is infinitely far apart; where neither is,
/// nothing is compared.
struct Distance {
  double at_least = 0;
  double at_most = 0;  ///< infinite where the facts do not tell
  Evidence evidence = Evidence::nothing;
  /// Bits or hash equal; of statistics and values: no difference that rounding does not explain.
  bool same = true;
  std::optional<size_t> channel;  ///< of the largest difference, where it is known
};
Distance DistanceOf(const Facts& a, const Facts& b);

/// The norm of the smaller of two rows, which a wrong row has not blown up: from l2 or rms where a
/// side has them, else the best that is there: std, single values, absmax, mean. In units of
/// sqrt(n) where n is unknown on both sides; absent where nothing tells.
std::optional<double> SmallerNorm(const Facts& a, const Facts& b);

}  // namespace lab
