#pragma once
#include <string>

#include "lab/diff_report.h"
#include "lab/run_headers.h"

namespace lab {

struct DiffOptions {
  Transforms how = {};
  std::string model = {};  ///< of both runs; empty: tolerances come from the table
  bool explain = false;
  int threads = 1;
};

/// Compares two runs, which must outlive the result; with a model also each with the oracle of its
/// contract. Throws Error where the model is not that of the runs, or nothing explains.
DiffResult DiffRuns(const RunRecord& a, const RunRecord& b, const DiffOptions& options);

}  // namespace lab
