#pragma once
// How much each step of a candidate's pass moves the logits, all others being clean.
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "lab/shard.h"
#include "model/forward.h"

namespace lab {

/// One step of one layer: an op, of the matvecs one matrix.
struct BlamedStep {
  int layer = kNoLayer;
  Op op = Op::silu;
  std::string name;  ///< "L03.q_proj", "L03.gate_up_swiglu", "lm_head"
  RowUse use;        ///< the candidate's
  /// KL(softmax(clean) || softmax(x)) of the last token's logits, in nats.
  double alone = 0;     ///< x: the clean pass with this step by the candidate
  double repaired = 0;  ///< x: the candidate's pass with this step clean
};

struct StepBlame {
  double oracle = 0;  ///< KL of the clean pass from the f32 oracle (under KV f16: what that costs)
  double candidate = 0;  ///< KL of the whole candidate from the clean pass
  size_t same = 0;       ///< steps that are no different in the two passes and were not run
  std::vector<BlamedStep> steps;  ///< largest `alone` first
};

struct StepBlameOptions {
  std::vector<std::pair<int, int>> layers = {};  ///< empty: all, and those outside the layers
  std::string ops = {};                          ///< globs of step names or ops
  Shard shard = {};
  int threads = 1;
  KvType kv = KvType::f32;                              ///< of both passes
  std::function<void(std::string_view)> progress = {};  ///< told what is being computed, if set
  std::function<void(std::string_view)> log = {};       ///< told the estimate, if set
};

/// The clean pass is hwy f32. It is first judged against the oracle as a whole pass. Each replaced
/// pass begins at the replaced step's layer, on the residual stream that the other one has there. A
/// step takes the rounding of its activations along. `ids` are at most one batch of Forward. Throws
/// Error: exit 1 when the clean pass is wrong itself, 3 when no step is left.
StepBlame BlameSteps(const Qwen2& model, const RowSet& candidate, std::span<const int32_t> ids,
                     const StepBlameOptions& options);

}  // namespace lab
