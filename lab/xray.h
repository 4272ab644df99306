#pragma once
// The weights that a row effectively uses, and which field of the blocks it reads wrongly.
#include <string>
#include <vector>

#include "lab/case.h"
#include "lab/mutants.h"

namespace lab {

/// One kind of mistake in the weights of a matrix.
struct XrayFinding {
  /// d, dmin, scale, min, q (the quants), block and sub-block (left out), weights (none of these:
  /// rounded, say), transposed, rows, matrix.
  std::string field;
  std::string what;  ///< "left out", "read as 0.5 of it", "that of sub-block 6 instead of 5"
  size_t parts = 0;  ///< sub-blocks that have it (of d, dmin and block: blocks; else weights)
  size_t first_row = 0, last_row = 0, rows = 0;  ///< range of rows, and how many of them have it
  std::string where;  ///< the first: "row 12, super-block 3, sub-block 5"
};

struct Xray {
  std::string matrix;  ///< "L03.q_proj", "L03.gate_up up"
  RowUse use = {};
  WeightView w;
  size_t wrong = 0;                   ///< weights that are not the oracle's
  std::vector<XrayFinding> findings;  ///< most parts first
};

/// w_eff[r, c] [rows, cols] of an output of a dot product ("y", or "gate" and "up"): what the row
/// makes of an input that is 127 in column c and 0 elsewhere, over 127. 127 is its own integer
/// under q8 and q16 (scales 1 and 2^-8), so no contract rounds it.
struct EffectiveWeights {
  std::string output;
  std::vector<float> values;
};
std::vector<EffectiveWeights> MeasureWeights(const Case& step, const RowUse& use, int threads);

/// Compares the effective weights of an output with those of the step. For each sub-block w_eff = D
/// q - M is fitted to its own quants q; D against d scale and M against dmin min tell which field
/// is wrong. Right is what is within 8 u (|D q| + |M|).
Xray CompareWeights(const Case& step, const std::string& output, const std::vector<float>& got);
/// Measures and compares every output of a row.
std::vector<Xray> XrayStep(const Case& step, const RowUse& use, int threads);

}  // namespace lab
