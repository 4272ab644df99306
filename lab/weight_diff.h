#pragma once
#include <optional>
#include <string>

#include "lab/table.h"
#include "model/weight_file.h"

namespace lab {

/// What `lab diff A B` is asked about two weight files.
struct WeightDiffOptions {
  std::string a, b;               ///< paths, or synthetic shapes
  std::optional<double> min_cos;  ///< every tensor must reach it
  int threads = 1;
  Format format = Format::text;
};

/// Compares two weight files of any formats tensor by tensor, matched by GGUF's names, row length
/// to row length, and prints the result, worst first. A finding is what explains a difference: a
/// tensor that the other file lacks, another shape, data that are transposed or another tensor's
/// (they leave at most a tenth of the rms difference), the first differing byte between equal
/// types. Returns kNumericFailure when a tensor is missing, has another shape, is transposed or
/// another's, or misses min_cos; kNotComparable when no tensor can be matched; else kPass.
int DiffWeights(const WeightDiffOptions& options);

}  // namespace lab
