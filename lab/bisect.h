#pragma once
// Which step of a candidate's pass is the first wrong one. Every row is fed with the oracle's own
// input of its step and judged as on a case; no error that a step has inherited counts against it.
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "lab/capture.h"
#include "lab/judge.h"
#include "lab/method_error.h"
#include "model/forward.h"

namespace lab {

/// One step of the candidate's pass.
struct StepVerdict {
  std::string name;  ///< of its case: "L03.q_proj"
  int layer = kNoLayer;
  RowUse use;
  Verdict verdict;  ///< on the oracle's own input: the local error
  /// Along the candidate's own chain: |candidate - oracle| / |oracle| (Euclidean, of the worst
  /// token), the largest of the step's outputs; absent where no tap shows one (quantize).
  std::optional<double> accumulated;
  /// accumulated over the same figure of the step's inputs; absent where an input has no error.
  std::optional<double> amplification;

  bool wrong() const { return verdict.status == Status::fail; }
};

struct BisectResult {
  RunContract contract;            ///< of the candidate, and of the oracle that judges it
  std::vector<StepVerdict> steps;  ///< in the order of the pass
  /// The first value of the candidate's pass that is not finite while the oracle's is.
  std::optional<std::string> not_finite;

  const StepVerdict* FirstWrong() const;
  size_t wrong() const;
};

/// Which steps are judged: in which layers (empty: all, and those outside the layers), and globs of
/// case names or ops.
struct StepFilter {
  std::vector<std::pair<int, int>> layers;
  std::string ops;
};

/// Runs the oracle of a contract and KV type once; then judges any number of candidates of that
/// contract against it. Memory: 8 bytes for each tap value (13 MB a token for the 1.5B model) and
/// the matrices of one layer.
class Bisector {
 public:
  /// `model` must outlive it. `progress`: told what is being computed, if set.
  Bisector(const Qwen2& model, Contract contract, KvType kv, std::vector<int32_t> ids, int threads,
           std::function<void(std::string_view)> progress = {});

  /// Throws Error (exit 3) when the filter leaves no step. A row on a step is judged once and
  /// remembered, since its local error does not depend on the rest of the pass.
  BisectResult Run(const RowSet& rows, const StepFilter& filter);

  /// The inputs of a step, as Run judged them; the name is one of its result.
  Case CaseOf(const StepVerdict& step) const;
  /// Judges a row on a case: twice, since a row may differ from run to run.
  Verdict Judge(const Case& c, const RowUse& use) const;

 private:
  class Accumulated;
  using Key = std::tuple<std::string, const Row*, const Mutant*>;
  std::vector<StepVerdict> StepsOf(const RowSet& rows, const StepFilter& filter,
                                   const Accumulated& accumulated, int layer) const;
  void JudgeSteps(std::vector<StepVerdict>& steps);
  void Say(const std::string& what) const;

  const Qwen2& model_;
  Contract contract_;
  KvType kv_;
  std::vector<int32_t> ids_;
  int threads_;
  std::function<void(std::string_view)> progress_;
  CapturedTaps oracle_;
  std::map<Key, Verdict> judged_;
};

}  // namespace lab
