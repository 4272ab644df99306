#pragma once
// What `lab check` says: verdicts as a table or as JSON lines, and their summary.
#include <string>
#include <vector>

#include "lab/judge.h"
#include "lab/mutant_matrix.h"
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
int ReportCheck(std::vector<CheckLine> lines, Format format, bool worst_first);

/// The same for outputs computed elsewhere, tried under several contracts: 0 if every case passes
/// under at least one of them.
int ReportCandidate(const std::vector<CheckLine>& lines, Format format);

/// The lines of JSON that ReportCheck printed, read again from files. Throws Error with file and
/// line.
std::vector<CheckLine> ReadCheckLines(const std::vector<std::string>& paths);

/// The same for mutants: 1 if one survived or a correct reordering failed.
int ReportMutants(const std::vector<MutantLine>& lines, Format format);

}  // namespace lab
