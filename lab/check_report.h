#pragma once
// What `lab check` says: verdicts as a table or as JSON lines, and their summary.
#include <string>
#include <vector>

#include "lab/judge.h"
#include "lab/mutant_matrix.h"
#include "lab/results.h"
#include "lab/table.h"

namespace lab {

/// One row on one case.
struct CheckLine {
  std::string case_name, row, target, kv, contract;
  Verdict verdict;
  double method_error = 0;  ///< relative; 0 under f32
};

/// Prints lines and summary to standard output; returns the exit code: 1 if anything failed, 125 if
/// nothing could run here, 3 if nothing was compared.
int ReportCheck(std::vector<CheckLine> lines, const std::vector<MadeBy>& made_by, Format format,
                bool worst_first);

/// The same for outputs computed elsewhere, tried under several contracts: 0 if every case passes
/// under at least one of them.
int ReportCandidate(const std::vector<CheckLine>& lines, Format format);

/// One mutant on all its ops.
struct MutantTotal {
  std::string mutant, slip, ops, problem;
  bool mistake = true;  ///< otherwise another order of summation, which must pass
  bool good = true;     ///< as it should be
  size_t compared = 0, failed = 0, nmse = 0, cosine = 0, allclose = 0;
  std::string_view verdict() const;
};
std::vector<MutantTotal> SumMutants(const std::vector<MutantLine>& lines);
/// The same for mutants: 1 if one survived or a correct reordering failed.
int ReportMutants(std::vector<MutantTotal> totals, const std::vector<MadeBy>& made_by,
                  Format format);

/// What ReportCheck and ReportMutants printed as JSON lines. Throws Error.
std::vector<CheckLine> CheckLinesOf(const Results& results);
std::vector<MutantTotal> MutantTotalsOf(const Results& results);

/// `lab check --merge`: the results of earlier runs, the parts of each joined, reported as if they
/// were one run. Throws Error for what ReadResults refuses, and where a result is there twice.
int ReportMerged(const std::vector<std::string>& paths, Format format, bool worst_first);

}  // namespace lab
