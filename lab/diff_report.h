#pragma once
// What lab diff prints.
#include <string>
#include <string_view>

#include "lab/explain.h"
#include "lab/run_compare.h"
#include "lab/table.h"

namespace lab {

/// Two runs compared; with a model also each of them against the oracle of its contract.
struct DiffResult {
  const RunRecord *a, *b;
  RunComparison runs;
  std::optional<RunComparison> a_oracle, b_oracle;
  std::vector<Explanation> explanations;
  bool explain_asked = false;
};

/// text: header, worst places, verdict. jsonl: records header (a field each), tap, not_compared,
/// seed, explanation, summary (notes/formats.md). csv, md: all places, worst first; throws Error
/// with the reasons (exit 3) where nothing can be compared.
std::string DiffTo(Format format, const DiffResult& result);
/// The verdict in one line: "within contract q8 (KV f16)", "different from L03.ffn_gate on", ...
std::string VerdictText(const DiffResult& result);
/// All places, largest ratio first.
std::vector<const Compared*> WorstFirst(const RunComparison& comparison);
int DiffExitCode(const DiffResult& result);

}  // namespace lab
