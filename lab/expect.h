#pragma once
// What a case's outputs should be under a contract, and how far a right kernel may be from it.
#include <optional>
#include <string>
#include <vector>

#include "lab/case.h"
#include "lab/stored_type.h"

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

/// How far the inputs of a step may be off, element by element as in its Case; empty: not at all.
struct InputErrors {
  std::vector<double> x, x2, k, v;
};

/// How another program kept the values of a step, which is all that is known of it: its inputs may
/// be off by half an ulp of `inputs` from what it computed from, its outputs by half an ulp of
/// `outputs` from what it computed.
struct Storage {
  StoredType inputs, outputs;
  InputErrors carried = {};  ///< of inputs that nobody stored: tolerances of the steps before
};

/// Runs the oracle of the contract. half_kv: gqa_attention reads its keys and values as half
/// floats. Threads change no bit. `storage`: the tolerances are for another program's values:
/// widened by what storing them may change, to first order (softmax: to any), and 4 ulp of float32
/// at the size of the operands where our own rows must have the bits.
std::vector<Expected> ExpectedOf(const Case& c, Contract contract, bool half_kv, int threads = 1,
                                 const std::optional<Storage>& storage = {});

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
