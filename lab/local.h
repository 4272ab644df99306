#pragma once
// The local errors of a run whose program nobody sees: from its values at a step's input taps the
// oracle computes what should be at the output taps, and its values there are judged as those of a
// row on a case (lab/judge.h). No error that a step has inherited counts against it.
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lab/capture.h"
#include "lab/judge.h"
#include "lab/method_error.h"
#include "lab/run_record.h"

namespace lab {

/// One step of the run.
struct LocalStep {
  std::string name;  ///< of its case: "L03.q_proj"
  int layer = kNoLayer;
  Op op = Op::silu;
  /// The steps before whose outputs the run lacks and this one needs: the oracle runs them from the
  /// nearest taps that the run has, and the step is judged together with them.
  std::vector<std::pair<std::string, Op>> over;
  std::vector<std::string> missing;  ///< why it is not judged: taps, or "token ids"; else empty
  Verdict verdict;                   ///< `token` is the position in the run
  std::string place;                 ///< the tap of the worst element: "L03.q_bias"

  bool judged() const { return missing.empty(); }
  bool wrong() const { return judged() && verdict.status == Status::fail; }
  std::string range() const;  ///< "L03.q_rope..attn_ctx", the name where nothing lies before
  std::string ops() const;    ///< "rope..gqa_attention"
};

struct LocalResult {
  std::vector<LocalStep> steps;  ///< in the order of the pass
  RunContract contract = {Contract::f32, KvType::f32};
  bool contract_is_a_guess = false, kv_is_a_guess = false;
  Storage storage = {StoredType::f32, StoredType::f32};  ///< the narrowest of the run
  bool bits =
      false;  ///< the run is lab's own in float32: elementwise steps are judged by their bits

  const LocalStep* FirstWrong() const;
  size_t judged() const;
  size_t wrong() const;
};

/// Judges every step whose input and output taps the run holds, token by token; attention needs the
/// keys and values of all tokens up to its own. A step over a fused ffn_swiglu is judged as
/// gate_up_swiglu. Where a tap inside a layer is
/// missing for all tokens, the oracle's steps bridge it, and their tolerances are carried on to
/// where the run has values again. What the run does not say of its contract and KV type is taken
/// from the first steps that depend on it: the one under which most of them pass, the narrowest of
/// these. Nothing is known about the order of additions, so the chain is one of all terms.
///
/// Throws Error (exit 3) when the run does not fit the model or has rows of no known token count.
/// `progress`: told what is being computed, if set. Memory: the taps of one layer in float64.
LocalResult JudgeLocally(const Qwen2& model, const RunRecord& run, int threads,
                         const std::function<void(std::string_view)>& progress = {});

}  // namespace lab
