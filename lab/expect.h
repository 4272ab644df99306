#pragma once
// What a case's outputs should be under a contract, and how far a right kernel may be from it.
#include <string>
#include <vector>

#include "lab/case.h"

namespace lab {

/// One output. The tolerance of element i for a kernel that adds at most `chain / lanes +
/// log2(lanes)` terms in a row (d) is sqrt(d) * per_sqrt_d[i] + fixed[i]; see notes/numerics.md for
/// the rules of each op.
struct Expected {
  std::string name;  ///< as Binding names its outputs
  size_t tokens = 0, n = 0;
  std::vector<double> value;  ///< of the oracle of the contract
  bool exact = false;         ///< the bits of the value rounded to float; the rest is empty
  size_t chain = 1;           ///< terms that are added up for one element
  std::vector<double> per_sqrt_d, fixed;

  double Tolerance(size_t i, size_t lanes) const;
};

/// Runs the oracle of the contract. half_kv: gqa_attention reads its keys and values as half
/// floats.
std::vector<Expected> ExpectedOf(const Case& c, Contract contract, bool half_kv);

}  // namespace lab
