#pragma once
// What a case's outputs should be under a contract, and how far a right kernel may be from it.
#include <optional>
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
/// floats. Threads change no bit.
std::vector<Expected> ExpectedOf(const Case& c, Contract contract, bool half_kv, int threads = 1);

/// The activations [tokens, cols] that a dot product of `w` reads under the contract: x, or what
/// its integers stand for.
std::vector<double> ActivationsOf(const Case& c, Contract contract, const WeightView& w);

/// What is expected of one case under every contract, each made when first asked for. The case must
/// outlive it.
class Oracles {
 public:
  explicit Oracles(const Case& c) : c_(c) {}
  const std::vector<Expected>& Of(Contract contract, bool half_kv) {
    std::optional<std::vector<Expected>>& slot = made_[static_cast<size_t>(contract)][half_kv];
    if (!slot) slot = ExpectedOf(c_, contract, half_kv);
    return *slot;
  }

 private:
  const Case& c_;
  std::optional<std::vector<Expected>> made_[3][2];
};

}  // namespace lab
