#pragma once
// The forward pass of qwen2: the only sequence of steps. Every step is one op of kernels.def run by
// the row of the chosen backend; taps are shown to a TapSink between the steps.
#include <chrono>
#include <initializer_list>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/device_pass.h"
#include "lab/aligned.h"
#include "lab/taps.h"
#include "lab/traffic.h"
#include "lab/use.h"
#include "model/kv_cache.h"
#include "model/qwen2.h"

namespace lab {

/// The rows that a pass runs, one for each op.
class RowSet {
 public:
  /// Ops that know no difference between contracts run their f32 row. Throws Error that names the
  /// first op for which the backend has no row under the contract.
  RowSet(Backend backend, Contract contract);
  /// Whether there is a row for every op, so that the constructor would not throw.
  static bool Complete(Backend backend, Contract contract);
  const Row& operator[](Op op) const { return *rows_[static_cast<size_t>(op)]; }
  /// Other rows or mutants for some steps; of rules that cover the same step the last one holds.
  /// Throws Error for a mutant that may write outside the buffers of a pass.
  void Use(std::vector<UseRule> rules);
  const std::vector<UseRule>& rules() const { return rules_; }
  /// What runs `op` in a layer (or kNoLayer); `name`: of a matvec, which.
  RowUse For(Op op, int layer, std::string_view name = {}) const;
  /// What rounds the activations for a row of that contract, which need not be the pass's.
  RowUse Quantizer(Contract contract, int layer) const;
  /// Whether gate_up_swiglu stands for gate_up, silu and swiglu in a layer: unless a rule is about
  /// one of the three.
  bool Fuses(int layer) const;
  /// Whether rows of this backend and contract are faster on a model that was Repacked.
  bool ReadsRows8() const { return backend_ == Backend::hwy && contract_ != Contract::f32; }
  Backend backend() const { return backend_; }
  Contract contract() const { return contract_; }

 private:
  Backend backend_;
  Contract contract_;
  std::vector<const Row*> rows_;  // by Op
  std::vector<UseRule> rules_;
};

/// The ops that a pass under that contract runs (dequantisation is checked, but no step of its
/// own).
std::vector<Op> ForwardOps(Contract contract);

/// What a pass computes unless asked otherwise: on the fast backends 16-bit activations, which cost
/// 6.7e-9 of the logits and little time (notes/numerics.md), else float.
constexpr Contract DefaultContract(Backend backend) {
  return backend == Backend::hwy || backend == Backend::cuda ? Contract::q16 : Contract::f32;
}

/// One step of a pass, as it was run.
struct StepTime {
  std::string_view step;  ///< the op; of the matvecs, which: "q_proj", "lm_head"
  int layer;              ///< or kNoLayer
  size_t first_token, tokens;
  double begin, seconds;  ///< begin: on std::chrono::steady_clock
  size_t bytes;           ///< Bytes() of the op's arguments
  double ops;             ///< OpsOf them
  Contract contract;      ///< of the row that ran: which peak rate `ops` is to be compared with
};

/// T is the element type of activations and KV cache: double for the oracle, float otherwise.
template <class T>
class Forward {
 public:
  /// A pass over at most `capacity` positions. Memory: the KV cache and activations for one batch
  /// of tokens. `model` must outlive it.
  ///
  /// On a backend with a device and without rules (RowSet::Use) all of it is kept there, weights
  /// too: between the steps nothing is copied but what somebody wants of the taps, and a step of
  /// one token is a graph. Throws Error where there is no room. With rules every row copies in and
  /// out.
  Forward(const Qwen2& model, RowSet rows, KvType kv, int threads, size_t capacity);

  /// Runs tokens at the next positions: prefill of many, decode of one; the bits are the same
  /// either way. Shows the taps that `sink` (may be null) wants. Without a sink that wants lm_head,
  /// logits are computed for the last token alone. position() + ids.size() must not exceed the
  /// capacity, ids must be below config.vocab.
  void Run(std::span<const int32_t> ids, TapSink<T>* sink);

  /// The rest of a pass over the first positions, from `layer` on (config.layers: final norm and
  /// logits alone), with `residual` [tokens, hidden] as it enters that layer. The same bits as a
  /// whole pass. Throws nothing; tokens must not exceed the capacity and one batch of 256.
  void Resume(size_t layer, std::span<const T> residual, TapSink<T>* sink);
  static constexpr size_t kBatch = 256;  ///< tokens in one pass over the weights, see forward.cc
  /// The logits of a traced prefill come in smaller batches: 152 k values for each token.
  static constexpr size_t kLmHeadBatch = 16;

  /// Appends a record of every step run from here on to `times` (null: no more), which must live as
  /// long. Without it a step costs one test of a pointer more.
  void RecordTimes(std::vector<StepTime>* times) { times_ = times; }

  size_t position() const { return position_; }
  /// The logits of the last token that was run, [vocab].
  std::span<const T> logits() const { return last_logits_; }

 private:
  void RunBatch(std::span<const int32_t> ids, bool is_last, TapSink<T>* sink);
  void RunSteps(const int32_t* ids, bool is_last, TapSink<T>* sink);
  void RunLayers(size_t first, bool is_last, TapSink<T>* sink);
  void PlaceOnDevice(size_t batch);
  void BeginBatch(size_t tokens);
  void RunGraph(TapSink<T>* sink);
  void Show(TapSink<T>* sink, const TapView<T>& view);
  // On a device (forward_device.cc).
  void ShowOnDevice(TapSink<T>* sink, const TapView<T>& view);
  void ShowPending(TapSink<T>* sink);
  void ShowTaps(const std::vector<TapView<T>>& taps, bool saved, TapSink<T>* sink);
  void Attention(const Qwen2Layer& w, size_t tokens, TapSink<T>* sink);
  void FeedForward(const Qwen2Layer& w, size_t tokens, TapSink<T>* sink);
  void LmHead(size_t tokens, TapSink<T>* sink);
  void FillAngles(size_t tokens);
  void StoreKv(size_t tokens);
  /// Activations as the matvecs read them: float, and under q8 and q16 as integers. Valid until the
  /// next one is made.
  struct DotInput {
    const T* x;
    QuantizedView by_256, by_32;
  };
  /// A step that will read a DotInput. The contract of its row says whether it wants integers.
  struct DotReader {
    Op op;
    std::string_view name;
    const WeightView& w;
  };
  DotInput MakeDotInput(const T* x, size_t n, size_t tokens,
                        std::initializer_list<DotReader> readers);
  /// The integers that a reader's row reads; none for a row of contract f32.
  QuantizedView IntegersFor(const DotReader& reader, const DotInput& in) const;
  void Matvec(Op op, std::string_view name, const WeightView& w, const float* bias,
              const DotInput& in, T* y, size_t tokens, size_t y_stride, T* y_before_bias = nullptr);
  void Norm(const T* x, const std::vector<float>& weight, T* y, size_t tokens);
  template <class Args>
  void Step(Op op, const Args& args, std::string_view name = {}) {
    RunStep(rows_.For(op, layer_, name), op, args, name);
  }
  template <class Args>
  void RunStep(const RowUse& use, Op op, const Args& args, std::string_view name = {}) {
    Timed(name.empty() ? NameOf(op) : name, args.Bytes(), OpsOf(args), use.row->contract,
          [&] { RunUse(use, args, threads_); });
  }
  template <class F>
  void Timed(std::string_view step, size_t bytes, double ops, Contract contract, F&& run) {
    if (!times_) return run();
    const auto begin = std::chrono::steady_clock::now();
    run();
    if (device_) device_->Wait();
    const std::chrono::duration<double> since_epoch = begin.time_since_epoch(),
                                        taken = std::chrono::steady_clock::now() - begin;
    times_->push_back({step, layer_, position_, batch_tokens_, since_epoch.count(), taken.count(),
                       bytes, ops, contract});
  }

  const Qwen2& model_;
  const Qwen2Config& config_;
  RowSet rows_;
  int threads_;
  size_t position_ = 0, batch_tokens_ = 0;
  std::vector<StepTime>* times_ = nullptr;
  int layer_ = kNoLayer;                        // that the steps being run belong to
  std::vector<T> cos_, sin_;                    // [batch, head_dim / 2]
  std::vector<T> residual_, norm_, projected_;  // [batch, hidden]
  std::vector<T> qkv_, qkv_before_bias_;        // [batch, qkv_dim]
  std::vector<T> attn_ctx_;                     // [batch, q_dim]
  std::vector<T> swiglu_;                       // [batch, ffn]
  std::vector<T> gate_, up_, silu_;             // likewise, once somebody wants to see them
  KvCache<T> kv_;
  QuantizedBuffer by_256_, by_32_;
  std::vector<T> logits_;  // [lm_head batch, vocab]
  std::span<const T> last_logits_;

  std::unique_ptr<DevicePass> device_;      // null: the buffers above are where the steps work
  std::vector<int32_t> ids_;                // [batch], on a device
  std::vector<size_t> position_on_device_;  // [1], position_
  std::vector<TapSums> sums_;               // of taps, on a device
  std::vector<T> attention_scratch_;        // of a row on a device
  std::vector<TapView<T>> pending_;         // taps not shown yet, in the order of the pass
  // The graph of a step of one token: what of which taps it was captured with, by layer and Tap,
  // and the taps themselves.
  std::vector<bool> graph_wants_;
  std::vector<TapView<T>> graph_taps_;
};

extern template class Forward<double>;
extern template class Forward<float>;

}  // namespace lab
