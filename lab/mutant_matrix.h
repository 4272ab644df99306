#pragma once
// The judge judged: every mutant around every row, on every case that it changes.
#include <string>
#include <vector>

#include "lab/case.h"
#include "lab/mutants.h"

namespace lab {

/// One mutant on all rows of one op. Counted are comparisons, a row on a case, in which it changes
/// the result.
struct MutantLine {
  const Mutant* mutant = nullptr;
  Op op = Op::silu;
  size_t compared = 0;                        ///< comparisons in which it made a difference
  size_t failed = 0;                          ///< of those, how many the judge failed
  size_t nmse = 0, cosine = 0, allclose = 0;  ///< how many the criteria in common use fail
  std::vector<std::string> survivors;         ///< rows that no case failed
  std::string wrong;  ///< of a correct reordering: the first comparison that failed, and why

  /// A mistake must fail on at least one case of every row; a correct reordering must pass on all.
  bool AsItShould() const {
    if (compared == 0) return false;
    return mutant->correct ? failed == 0 : survivors.empty();
  }
};

/// Lines in the order of mutants.def, then of the ops. Ops on which a mutant changes nothing are
/// left out, but a mutant that changes nothing anywhere keeps one line. Rows run on the current
/// SIMD target. until_killed: a mistake is compared no further on a row that has failed under it.
std::vector<MutantLine> RunMutants(const std::vector<const Mutant*>& mutants,
                                   const std::vector<const Row*>& rows,
                                   const std::vector<Case>& cases, int threads,
                                   bool until_killed = false);

}  // namespace lab
