#pragma once
// Mutants: the mistakes that authors of kernels make, as wrappers around any row. A judge that lets
// one of them pass is no judge. The list is lab/mutants.def.
#include <span>
#include <string_view>

#include "lab/registry.h"

namespace lab {

struct Mutant {
  std::string_view name;
  std::string_view slip;  ///< what went wrong, in a few words
  bool correct;           ///< no mistake but another order of summation, which must pass
  bool guarded;           ///< touches memory outside its buffers: only for buffers between guards
  uint32_t ops;           ///< bit 1 << Op for every op that it can wrap
  /// Runs `row` on args (of the type row.args) with the slip. False, and nothing was run, where it
  /// makes no difference: another block type, no bias, a single token.
  bool (*run)(const Row& row, const void* args, int threads);

  bool Wraps(Op op) const { return (ops >> static_cast<int>(op) & 1) != 0; }
};

std::span<const Mutant> Mutants();
/// Throws Error naming `flag` and the known names.
const Mutant& FindMutant(std::string_view name, std::string_view flag);

/// A row as it is, or under a mutant.
struct RowUse {
  const Row* row = nullptr;
  const Mutant* mutant = nullptr;
};

/// Runs it, as it is where the mutant makes no difference. Whether the mutant did.
template <class Args>
bool RunUse(const RowUse& use, const Args& args, int threads) {
  if (use.mutant && use.mutant->run(*use.row, &args, threads)) return true;
  RunRow(*use.row, args, threads);
  return false;
}

}  // namespace lab
