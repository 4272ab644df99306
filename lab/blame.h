#pragma once
#include <string>
#include <vector>

#include "lab/judge.h"

namespace lab {

/// Which part of the weights explains why a dot product (matvec, down_proj, gate_up) or a
/// dequantisation is wrong: "row 12, columns 928 to 959 (super-block 3, sub-block 5): left out".
///
/// A wrong sub-block s of row r adds to each token t the error
///   e[t] = a sum_{c in s} w[c] x[t, c] + b sum_{c in s} x[t, c]
/// (a: its scale is wrong, -1 when left out; b: its offset or minimum). The two are fitted to the
/// error of the worst row by least squares for every sub-block in turn; the one that explains all
/// but a thousandth of the error is named, if there is just one. That takes more tokens than
/// unknowns: with fewer than 4 the answer is "" (so it is when no single sub-block explains it).
/// Rows with a NaN in them are left out.
std::string BlameSubBlock(const Case& c, Contract contract, const std::vector<Expected>& expected,
                          const std::deque<GuardedBuffer<float>>& got, size_t lanes);

}  // namespace lab
