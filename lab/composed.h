#pragma once
// Judges whole forward passes. Along a candidate's own chain errors add up and get amplified, so
// there is no tolerance to derive from the terms of a sum (lab/expect.cc has those, for single
// ops). The measure is what the contract and float32 themselves cost at the same place.
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lab/place.h"
#include "lab/taps.h"
#include "model/forward.h"

namespace lab {

/// The composed rule at one place; norms are Euclidean, over the channels:
///   error   = ||candidate - oracle||
///   allowed = 4 max(||oracle - oracle_f32||, ||yardstick - oracle_f32||)
/// oracle: the float64 pass under the candidate's contract and KV type; oracle_f32: the one under
/// f32 with f32 KV; yardstick: the float32 pass with plain sums. The yardstick counts because the
/// method error, the first of the two, is zero before the first rounded matvec (under f32
/// everywhere), while every float32 pass has its rounding.
struct TapVerdict {
  Place place;
  size_t compared = 0;  ///< finite pairs; pairs of NaN and Inf are equal but compare nothing
  size_t channel = 0;   ///< of the largest difference
  double error = 0, allowed = 0;  ///< infinite where one of a pair is finite and the other is not
  /// False as well when nothing was compared, or when the oracles leave no finite bound.
  bool pass() const;
  /// error / allowed; 0/0 is 0. Infinite when nothing was compared or there is no finite bound.
  double ratio() const;
};

/// The logits x of one token, beside those of oracle_f32.
struct LogitFigures {
  double rse = 0;      ///< relative squared error: sum (x - oracle_f32)^2 / sum oracle_f32^2
  double kl = 0;       ///< KL(softmax(oracle_f32) || softmax(x)) in nats, good to about 1e-14
  double largest = 0;  ///< max |x - oracle_f32|
  int32_t argmax = -1;
  double margin = 0;  ///< highest logit minus the second highest
};

/// T float or double; x as long as `exact`, the logits of oracle_f32.
template <class T>
LogitFigures FiguresOf(const T* x, const std::vector<double>& exact);

enum class TokenStatus { same, tie, fail };

/// The token rule: another argmax than the oracle's is a failure when the oracle's margin exceeds
/// twice the largest difference between baseline and oracle_f32, else a tie.
struct TokenLogits {
  LogitFigures candidate;
  LogitFigures oracle;    ///< of the contract
  LogitFigures baseline;  ///< that oracle too; where it is oracle_f32 itself, the yardstick
  TokenStatus status() const;
};

struct ContractResult {
  Contract contract;
  KvType kv;
  std::vector<TapVerdict> taps;     ///< chunk by chunk, each in the order of the pass
  std::vector<TokenLogits> logits;  ///< by position
  /// The first value of the candidate that is not finite, and its channel.
  std::optional<std::pair<Place, size_t>> not_finite;
};

struct ComposedOptions {
  std::vector<Contract> contracts = {Contract::f32, Contract::q16, Contract::q8};
  std::optional<KvType> kv;  ///< absent: the default of each contract
  int threads = 1;
  /// Told what is being computed, if set.
  std::function<void(std::string_view)> progress;
};

/// A candidate: runs ids at its next positions and shows every tap. Made for one contract, KV type
/// and number of positions.
using CandidatePass = std::function<void(std::span<const int32_t> ids, TapSink<float>& sink)>;
using MakeCandidate = std::function<CandidatePass(Contract, KvType, size_t capacity)>;

/// The pass of a backend, with rules of --use: the first `prompt_tokens` in batches as they come,
/// later ones each in a step of its own, as when text is generated. Throws Error when it lacks a
/// row or a rule is wrong.
MakeCandidate CandidatesOf(const Qwen2& model, Backend backend, int threads,
                           const std::vector<std::string>& use = {},
                           size_t prompt_tokens = SIZE_MAX);

/// `prompt` and `n` tokens more, greedily by oracle_f32, past any end of text.
std::vector<int32_t> ContinueGreedily(const Qwen2& model, std::span<const int32_t> prompt, size_t n,
                                      const ComposedOptions& options);

/// Runs the oracles, the yardstick and a candidate for each contract over the same ids, in lockstep
/// by chunks of 8 tokens. Memory: two float64 copies of all taps of a chunk (13 MB a token each for
/// the 1.5B model) and the KV caches.
std::vector<ContractResult> RunComposed(const Qwen2& model, std::span<const int32_t> ids,
                                        const ComposedOptions& options, const MakeCandidate& make);

}  // namespace lab
