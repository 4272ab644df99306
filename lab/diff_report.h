#pragma once
// What lab diff prints.
#include <string>
#include <string_view>

#include "lab/explain.h"
#include "lab/run_compare.h"

namespace lab {

/// Two runs compared; with a model also each of them against the oracle of its contract.
struct DiffResult {
  const RunRecord *a, *b;
  RunComparison runs;
  std::optional<RunComparison> a_oracle, b_oracle;
  std::vector<Explanation> explanations;
  bool explain_asked = false;
};

std::string DiffToText(const DiffResult& result);
/// Records: header (a field each), tap, not_compared, seed, explanation, summary
/// (notes/formats.md).
std::string DiffToJsonl(const DiffResult& result);
/// The verdict in one line: "within contract q8 (KV f16)", "different from L03.ffn_gate on", ...
std::string VerdictText(const DiffResult& result);
int DiffExitCode(const DiffResult& result);

}  // namespace lab
