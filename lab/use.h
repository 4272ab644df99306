#pragma once
// --use OP[@LAYERS]=ROW|mutant:NAME: another row, or a mutant, for some steps of a pass.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lab/mutants.h"

namespace lab {

struct UseRule {
  std::string text;  ///< as the user wrote it
  Op op = Op::silu;
  std::vector<std::pair<int, int>> layers;  ///< ranges, both ends included; empty: every step
  const Row* row = nullptr;                 ///< one of the two is set
  const Mutant* mutant = nullptr;
  // What no text says:
  std::string matvec = {};     ///< one matrix alone ("q_proj"); empty: every one
  bool forgets_rules = false;  ///< row and mutant as here, whatever the rules before it say

  bool Covers(Op step, int layer, std::string_view name = {}) const;
};

/// "3", "0-5" or "0-5,9" as ranges, both ends included. Throws Error that begins with `what`.
std::vector<std::pair<int, int>> ParseLayers(std::string_view text, size_t layers,
                                             const std::string& what);

/// One rule a text. ROW is the function of a row ("MatvecRef") or a backend, which then means its
/// row under `contract`. `layers`: of the model; 0 where there are no layers to choose. Throws
/// Error that quotes the rule.
std::vector<UseRule> ParseUse(const std::vector<std::string>& texts, Contract contract,
                              size_t layers);

}  // namespace lab
