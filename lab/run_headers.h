#pragma once
// May two runs be compared at all? Decided from what their files say before any figure is looked
// at.
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "lab/run_record.h"

namespace lab {

/// How the user allows runs to be brought to the same form; nothing is transformed unasked.
struct Transforms {
  std::string only;            ///< "all" or "" for every common token, "last", or a position
  bool pooled = false;         ///< pool the tokens of the run that has them apart
  bool across_phases = false;  ///< a prefilled token against a decoded one
  bool convert_std = false;    ///< from one divisor to the other
};

enum class Agreement { same, different, unknown };
std::string_view NameOf(Agreement agreement);

struct HeaderField {
  std::string_view name;
  std::string a, b;  ///< "unknown" where a file does not say
  Agreement agreement;
};

struct HeaderComparison {
  std::vector<HeaderField> fields;
  std::vector<std::string> reasons;  ///< why nothing can be compared; empty: it can
  std::vector<std::string> remarks;
  /// Positions from here on hold different tokens, or none, in one of the runs.
  size_t common_tokens = std::numeric_limits<size_t>::max();
  std::set<size_t> excluded;   ///< positions left out because their phases differ
  std::optional<size_t> only;  ///< the one position that --only names

  bool Includes(size_t token) const {
    return token < common_tokens && !excluded.contains(token) && (!only || token == *only);
  }
};

/// Throws Error for an --only that is no position.
HeaderComparison CompareHeaders(const RunRecord& a, const RunRecord& b, const Transforms& how);

/// The last position of a run, if it is known.
std::optional<size_t> LastToken(const RunRecord& run);

}  // namespace lab
