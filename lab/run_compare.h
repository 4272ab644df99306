#pragma once
// lab diff: two runs compared place by place, and what that says.
#include <functional>
#include <string>
#include <vector>

#include "lab/composed.h"
#include "lab/facts.h"
#include "lab/method_error.h"
#include "lab/run_headers.h"

namespace lab {

/// One place of both runs. `tokens` has one position, or all those of a pooled figure (empty: the
/// files do not say which).
struct Compared {
  Place place;  ///< token: the first of `tokens`
  bool pooled = false;
  std::vector<size_t> tokens;
  Distance distance;
  double norm = 0;          ///< of the smaller side: the one that a wrong row has not blown up
  double method_error = 0;  ///< what the contract costs here
  double allowed = 0;       ///< for the distance: a multiple of method_error
  /// Of single values (llama.cpp prints a few of each row) the one of the largest ratio: |a_i -
  /// b_i| beyond rounding, and what is allowed for one, 4 |method error of the channel| + 5 sigma
  /// with sigma = method error / sqrt(n).
  double value_apart = 0, value_allowed = 0;
  std::optional<double> std_a, std_b;
  std::optional<double> massive;  ///< the magnitude of a massive activation (lab/stats.h) in A or B

  /// Proven distance over the allowed one, or that of the single value if it is larger; 0/0 is 0.
  /// Infinite where there is no finite bound.
  double ratio() const;
  /// The ratio is that of a single value.
  bool by_value() const;
  /// As much is allowed as the row is long: not even a row of zeros would be found.
  bool blind() const { return !(allowed < norm) && norm > 0; }
  /// A difference that right runs do not have, whatever the facts leave open.
  bool different() const { return !(ratio() <= 1); }
};

/// A tap of one layer that only one run has, or both in forms that cannot be compared.
struct NotCompared {
  Tap tap;
  int layer;
  std::string why;
  bool in_both = false;
};

enum class RunVerdict { not_comparable, identical, within, different };

struct RunComparison {
  HeaderComparison headers;
  std::vector<Compared> places;  ///< in the order of the pass
  std::vector<NotCompared> rest;
  RunContract contract = {Contract::f32, KvType::f32};  ///< whose method error was allowed
  double factor = 4;                 ///< allowed / method_error: 8 across KV types
  bool contract_is_a_guess = false;  ///< a run does not name its own
  bool estimated = false;            ///< by the table, without the model

  RunVerdict verdict() const;
  /// The first place that differs; null when none does.
  const Compared* first_different() const;
  /// The weakest evidence of all places.
  Evidence weakest() const;
  /// The relative distance, at a right angle to the values, from which on statistics alone would
  /// have shown it, median over the places that have no more: sqrt(2 allowed / norm).
  std::optional<double> blind_below() const;
};

/// The rule of thumb "std 10x apart or more is a bug, below 2x is normal", applied to the same
/// places: the largest ratio.
struct SeedCriterion {
  const Compared* worst = nullptr;
  double ratio = 1;
  std::string_view says() const;  ///< "bug", "normal", "unclear"
};
SeedCriterion SeedOf(const RunComparison& comparison);

/// `reference` may be null: then the table is used, and the result says so.
RunComparison CompareRuns(const RunRecord& a, const RunRecord& b, const Transforms& how,
                          const ReferenceRuns* reference);

}  // namespace lab
