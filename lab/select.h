#pragma once
// Which rows `lab check` and `lab bench` run, as their flags say it.
#include "lab/use.h"

namespace lab {

/// The rows whose op or function matches one of the globs `ops`, of that backend and contract ("":
/// any, but cuda_host only by name); none of the oracle, which is what the others are judged
/// against. Throws Error (exit 3)
/// where nothing is left.
std::vector<const Row*> SelectRows(const std::string& ops, const std::string& backend,
                                   const std::string& contract);

/// --use where rows run on cases: mutants alone, and no layers. Throws Error that quotes the rule.
std::vector<UseRule> ParseMutantUse(const std::vector<std::string>& texts);

/// The row under the last mutant that the rules give to its op.
RowUse UseOf(const Row& row, const std::vector<UseRule>& rules);

/// "SiluHwy" or "SiluHwy+gelu".
std::string NameOf(const RowUse& use);

}  // namespace lab
