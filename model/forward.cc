#include "model/forward.h"

#include <algorithm>

#include "lab/device.h"
#include "lab/error.h"
#include "lab/names.h"
#include "model/rope_angles.h"

namespace lab {

std::vector<Op> ForwardOps(Contract contract) {
  std::vector<Op> ops = {Op::embed,         Op::rms_norm,  Op::matvec,        Op::rope,
                         Op::gqa_attention, Op::gate_up,   Op::residual_add,  Op::silu,
                         Op::swiglu,        Op::down_proj, Op::gate_up_swiglu};
  if (contract != Contract::f32) ops.push_back(Op::quantize);
  return ops;
}

namespace {

// Ops that know no difference between contracts have an f32 row alone.
const Row* RowFor(Op op, Backend backend, Contract contract) {
  const bool knows_contract = FindRow(op, contract, Backend::oracle) != nullptr;
  const Row* row = FindRow(op, knows_contract ? contract : Contract::f32, backend);
  return row;
}

}  // namespace

bool RowSet::Complete(Backend backend, Contract contract) {
  const std::vector<Op> ops = ForwardOps(contract);
  return std::all_of(ops.begin(), ops.end(), [&](Op op) {
    const Row* row = RowFor(op, backend, contract);
    return row && WhyNotHere(*row).empty();
  });
}

RowSet::RowSet(Backend backend, Contract contract)
    : backend_(backend), contract_(contract), rows_(Rows().size()) {
  for (const Op op : ForwardOps(contract)) {
    const Row* row = rows_[static_cast<size_t>(op)] = RowFor(op, backend, contract);
    if (row && !WhyNotHere(*row).empty())
      throw Error(kCannotRun, fmt::format("--backend {}: {}", NameOf(backend), WhyNotHere(*row)));
    if (!row)
      throw Error(kCannotRun,
                  fmt::format("--backend {} --contract {}: op {} has no such row in this binary; "
                              "'lab list kernels' shows what there is",
                              NameOf(backend), NameOf(contract), NameOf(op)));
  }
}

void RowSet::Use(std::vector<UseRule> rules) {
  for (const UseRule& rule : rules)
    if (rule.mutant && rule.mutant->guarded)
      Fail("--use {}: this mutant touches memory outside its buffers; only 'lab check' can run it",
           rule.text);
  for (const UseRule& rule : rules) {
    if (!rule.row || rule.row->contract == Contract::f32) continue;
    if (!RowFor(Op::quantize, backend_, rule.row->contract))
      Fail("--use {}: backend {} cannot round activations to {}", rule.text, NameOf(backend_),
           NameOf(rule.row->contract));
  }
  rules_ = std::move(rules);
}

RowUse RowSet::For(Op op, int layer, std::string_view name) const {
  RowUse use = {rows_[static_cast<size_t>(op)]};
  for (const UseRule& rule : rules_) {
    if (!rule.Covers(op, layer, name)) continue;
    if (rule.forgets_rules) use = {};
    if (rule.row) use.row = rule.row;
    if (rule.mutant) use.mutant = rule.mutant;
  }
  return use;
}

RowUse RowSet::Quantizer(Contract contract, int layer) const {
  RowUse use = For(Op::quantize, layer);
  if (!use.row || use.row->contract != contract) use.row = RowFor(Op::quantize, backend_, contract);
  return use;
}

bool RowSet::Fuses(int layer) const {
  return std::none_of(rules_.begin(), rules_.end(), [&](const UseRule& rule) {
    return rule.Covers(Op::gate_up, layer) || rule.Covers(Op::silu, layer) ||
           rule.Covers(Op::swiglu, layer);
  });
}

// kBatch bounds the activations (75 MB for the 1.5B model in double); more would gain little, since
// the weights are read once for all of them already.
template <class T>
Forward<T>::Forward(const Qwen2& model, RowSet rows, KvType kv, int threads, size_t capacity)
    : model_(model),
      config_(model.config),
      rows_(std::move(rows)),
      threads_(threads),
      kv_(kv, config_.layers, config_.kv_heads, config_.head_dim, capacity) {
  const size_t batch = std::min(capacity, kBatch), half = config_.head_dim / 2;
  cos_.resize(batch * half);
  sin_.resize(batch * half);
  for (auto* v : {&residual_, &norm_, &projected_}) v->resize(batch * config_.hidden);
  qkv_.resize(batch * config_.qkv_dim());
  attn_ctx_.resize(batch * config_.q_dim());
  swiglu_.resize(batch * config_.ffn);
  if (std::is_same_v<T, float> && rows_.rules().empty()) device_ = MakeDevicePass(rows_.backend());
  kv_.Allocate(device_ != nullptr);
  if (device_) PlaceOnDevice(batch);
}

template <class T>
void Forward<T>::Show(TapSink<T>* sink, const TapView<T>& view) {
  if (!sink || !sink->Wants(view.tap, view.layer)) return;
  if (device_)
    ShowOnDevice(sink, view);
  else
    sink->OnTap(view);
}

template <class T>
void Forward<T>::Run(std::span<const int32_t> ids, TapSink<T>* sink) {
  for (size_t done = 0; done < ids.size();) {
    const size_t n = std::min(kBatch, ids.size() - done);
    RunBatch(ids.subspan(done, n), done + n == ids.size(), sink);
    done += n;
  }
}

template <class T>
void Forward<T>::RunBatch(std::span<const int32_t> ids, bool is_last, TapSink<T>* sink) {
  BeginBatch(ids.size());
  if (device_) {
    std::copy(ids.begin(), ids.end(), ids_.begin());
    device_->Upload(ids_.data(), ids.size_bytes());
  }
  // Steps that are timed are run one by one.
  if (device_ && ids.size() == 1 && is_last && !times_)
    RunGraph(sink);
  else
    RunSteps(device_ ? ids_.data() : ids.data(), is_last, sink);
  ShowPending(sink);
  if (device_ && is_last)
    device_->Fetch(const_cast<T*>(last_logits_.data()), last_logits_.size_bytes());
  position_ += ids.size();
}

template <class T>
void Forward<T>::Resume(size_t layer, std::span<const T> residual, TapSink<T>* sink) {
  position_ = 0;
  BeginBatch(residual.size() / config_.hidden);
  std::copy(residual.begin(), residual.end(), residual_.begin());
  if (device_) device_->Upload(residual_.data(), residual.size_bytes());
  RunLayers(layer, true, sink);
  ShowPending(sink);
  if (device_) device_->Fetch(const_cast<T*>(last_logits_.data()), last_logits_.size_bytes());
  position_ += batch_tokens_;
}

// What depends on the position alone.
template <class T>
void Forward<T>::BeginBatch(size_t tokens) {
  batch_tokens_ = tokens;
  pending_.clear();  // of a batch that failed
  Timed("rope_angles", 0, 0, Contract::f32, [&] { FillAngles(tokens); });
  if (!device_) return;
  position_on_device_[0] = position_;
  device_->Upload(position_on_device_.data(), sizeof position_);
  for (const auto* v : {&cos_, &sin_})
    device_->Upload(v->data(), tokens * config_.head_dim / 2 * sizeof(T));
}

template <class T>
void Forward<T>::RunSteps(const int32_t* ids, bool is_last, TapSink<T>* sink) {
  const size_t tokens = batch_tokens_, hidden = config_.hidden;
  Step(Op::embed, EmbedArgs<T>{model_.token_embd, ids, residual_.data(), tokens});
  Show(sink, {Tap::embedding, kNoLayer, position_, tokens, hidden, hidden, residual_.data()});
  RunLayers(0, is_last, sink);
}

template <class T>
void Forward<T>::RunLayers(size_t first, bool is_last, TapSink<T>* sink) {
  const size_t tokens = batch_tokens_, hidden = config_.hidden;
  for (size_t layer = first; layer < config_.layers; ++layer) {
    layer_ = static_cast<int>(layer);
    Attention(model_.layers[layer], tokens, sink);
    FeedForward(model_.layers[layer], tokens, sink);
  }
  layer_ = kNoLayer;
  Norm(residual_.data(), model_.output_norm, norm_.data(), tokens);
  Show(sink, {Tap::final_norm, kNoLayer, position_, tokens, hidden, hidden, norm_.data()});
  if (is_last || (sink && sink->Wants(Tap::lm_head, kNoLayer))) LmHead(tokens, sink);
}

// attn_residual = layer input + W_o attention(rope(q), rope(k), v) with q, k, v from the normed
// input.
template <class T>
void Forward<T>::Attention(const Qwen2Layer& w, size_t tokens, TapSink<T>* sink) {
  const Qwen2Config& c = config_;
  const size_t hidden = c.hidden, q_dim = c.q_dim(), kv_dim = c.kv_dim(), stride = c.qkv_dim();
  T *q = qkv_.data(), *k = q + q_dim, *v = k + kv_dim;
  const auto show = [&](Tap tap, const T* values, size_t n, size_t value_stride) {
    Show(sink, {tap, layer_, position_, tokens, n, value_stride, values});
  };

  Norm(residual_.data(), w.attn_norm, norm_.data(), tokens);
  show(Tap::attn_norm, norm_.data(), hidden, hidden);

  const auto wants = [&](Tap tap) { return sink && sink->Wants(tap, layer_); };
  T* before = nullptr;  // where the projections without bias go, if anybody looks
  if (wants(Tap::q_proj) || wants(Tap::k_proj) || wants(Tap::v_proj)) {
    qkv_before_bias_.resize(qkv_.size());
    before = qkv_before_bias_.data();
  }
  const DotInput input = MakeDotInput(norm_.data(), hidden, tokens,
                                      {{Op::matvec, "q_proj", w.attn_q},
                                       {Op::matvec, "k_proj", w.attn_k},
                                       {Op::matvec, "v_proj", w.attn_v}});
  const auto project = [&](std::string_view name, const WeightView& weight,
                           const std::vector<float>& bias, size_t column) {
    Matvec(Op::matvec, name, weight, bias.data(), input, qkv_.data() + column, tokens, stride,
           before ? before + column : nullptr);
  };
  project("q_proj", w.attn_q, w.q_bias, 0);
  project("k_proj", w.attn_k, w.k_bias, q_dim);
  project("v_proj", w.attn_v, w.v_bias, q_dim + kv_dim);
  if (before) {
    show(Tap::q_proj, before, q_dim, stride);
    show(Tap::k_proj, before + q_dim, kv_dim, stride);
    show(Tap::v_proj, before + q_dim + kv_dim, kv_dim, stride);
  }
  show(Tap::q_bias, q, q_dim, stride);
  show(Tap::k_bias, k, kv_dim, stride);
  show(Tap::v_bias, v, kv_dim, stride);
  show(Tap::qkv, q, stride, stride);

  for (const auto& [x, heads] : {std::pair(q, c.heads), {k, c.kv_heads}})
    Step(Op::rope, RopeArgs<T>{x, x, cos_.data(), sin_.data(), tokens, heads, c.head_dim, stride,
                               position_, c.rope_base});
  show(Tap::q_rope, q, q_dim, stride);
  show(Tap::k_rope, k, kv_dim, stride);
  const auto layer = static_cast<size_t>(layer_);
  const size_t kv_values = 2 * tokens * kv_dim;
  Timed("kv_store", kv_values * (sizeof(T) + kv_.value_bytes()), 0, Contract::f32,
        [&] { StoreKv(tokens); });

  GqaAttentionArgs<T> attention = {};
  attention.q = q;
  kv_.Bind(layer, attention);
  attention.y = attn_ctx_.data();
  attention.tokens = tokens;
  attention.first_position = position_;
  attention.heads = c.heads;
  attention.group = c.heads / c.kv_heads;
  attention.head_dim = c.head_dim;
  attention.q_stride = stride;
  attention.y_stride = q_dim;
  if (device_) {
    attention.first_position_at = position_on_device_.data();
    attention.scratch = attention_scratch_.data();
  }
  Step(Op::gqa_attention, attention);
  show(Tap::attn_ctx, attn_ctx_.data(), q_dim, q_dim);
  const DotInput context =
      MakeDotInput(attn_ctx_.data(), q_dim, tokens, {{Op::matvec, "o_proj", w.attn_output}});
  Matvec(Op::matvec, "o_proj", w.attn_output, nullptr, context, projected_.data(), tokens, hidden);
  show(Tap::attn_out, projected_.data(), hidden, hidden);
  Step(Op::residual_add,
       ResidualAddArgs<T>{residual_.data(), projected_.data(), residual_.data(), tokens * hidden});
  show(Tap::attn_residual, residual_.data(), hidden, hidden);
}

// layer_out = attn_residual + W_down (silu(W_gate x) * (W_up x)) with x the normed attn_residual.
template <class T>
void Forward<T>::FeedForward(const Qwen2Layer& w, size_t tokens, TapSink<T>* sink) {
  const size_t hidden = config_.hidden, ffn = config_.ffn;
  const auto show = [&](Tap tap, const std::vector<T>& values, size_t n) {
    Show(sink, {tap, layer_, position_, tokens, n, n, values.data()});
  };

  Norm(residual_.data(), w.ffn_norm, norm_.data(), tokens);
  show(Tap::ffn_norm, norm_, hidden);
  const bool fused = rows_.Fuses(layer_);
  const Op gate_up_op = fused ? Op::gate_up_swiglu : Op::gate_up;
  const DotReader gate = {gate_up_op, {}, w.ffn_gate}, up = {gate_up_op, {}, w.ffn_up};
  const DotInput input = MakeDotInput(norm_.data(), hidden, tokens, {gate, up});
  GateUpArgs<T> gate_up = {
      gate.w,  up.w,   input.x, IntegersFor(gate, input), IntegersFor(up, input), nullptr,
      nullptr, tokens, ffn};
  T* silu = nullptr;
  const auto wants = [&](Tap tap) { return sink && sink->Wants(tap, layer_); };
  // A kernel for both matrices needs them of one type, else it goes through the three buffers.
  const bool in_steps = device_ && gate.w.type != up.w.type;
  if (!fused || in_steps || wants(Tap::ffn_gate) || wants(Tap::ffn_up) || wants(Tap::ffn_silu)) {
    for (auto* v : {&gate_, &up_, &silu_}) v->resize(swiglu_.size());
    gate_up.gate = gate_.data();
    gate_up.up = up_.data();
    silu = silu_.data();
  }
  if (fused) {
    Step(Op::gate_up_swiglu, GateUpSwigluArgs<T>{gate_up, silu, swiglu_.data()});
  } else {
    Step(Op::gate_up, gate_up);
    Step(Op::silu, SiluArgs<T>{gate_up.gate, silu, tokens * ffn});
    Step(Op::swiglu, SwigluArgs<T>{silu, gate_up.up, swiglu_.data(), tokens * ffn});
  }
  if (silu) {
    show(Tap::ffn_gate, gate_, ffn);
    show(Tap::ffn_up, up_, ffn);
    show(Tap::ffn_silu, silu_, ffn);
  }
  show(Tap::ffn_swiglu, swiglu_, ffn);
  const DotInput swiglu =
      MakeDotInput(swiglu_.data(), ffn, tokens, {{Op::down_proj, "down_proj", w.ffn_down}});
  Matvec(Op::down_proj, "down_proj", w.ffn_down, nullptr, swiglu, projected_.data(), tokens,
         hidden);
  show(Tap::ffn_out, projected_, hidden);
  Step(Op::residual_add,
       ResidualAddArgs<T>{residual_.data(), projected_.data(), residual_.data(), tokens * hidden});
  show(Tap::layer_out, residual_, hidden);
}

// Logits of all tokens of the batch if somebody looks, else of the last.
template <class T>
void Forward<T>::LmHead(size_t tokens, TapSink<T>* sink) {
  const size_t vocab = config_.vocab;
  const bool all = sink && sink->Wants(Tap::lm_head, kNoLayer);
  size_t n = 0;
  for (size_t first = all ? 0 : tokens - 1; first < tokens; first += n) {
    n = std::min(kLmHeadBatch, tokens - first);
    logits_.resize(std::max(logits_.size(), n * vocab));
    const DotInput input = MakeDotInput(&norm_[first * config_.hidden], config_.hidden, n,
                                        {{Op::matvec, "lm_head", model_.output}});
    Matvec(Op::matvec, "lm_head", model_.output, nullptr, input, logits_.data(), n, vocab);
    Show(sink, {Tap::lm_head, kNoLayer, position_ + first, n, vocab, vocab, logits_.data()});
  }
  last_logits_ = std::span<const T>(logits_).subspan((n - 1) * vocab, vocab);
}

template <class T>
void Forward<T>::FillAngles(size_t tokens) {
  const size_t half = config_.head_dim / 2;
  for (size_t t = 0; t < tokens; ++t)
    FillRopeAngles(config_.rope_base, config_.head_dim, position_ + t, &cos_[t * half],
                   &sin_[t * half]);
}

template <class T>
void Forward<T>::StoreKv(size_t tokens) {
  const T* k = qkv_.data() + config_.q_dim();
  KvStoreArgs<T> args = {{}, k, k + config_.kv_dim(), tokens, config_.qkv_dim(), position_};
  kv_.Bind(static_cast<size_t>(layer_), args);
  if constexpr (std::is_same_v<T, float>) {
    if (device_) {
      args.first_position_at = position_on_device_.data();
      return device_->StoreKv(args);
    }
  }
  StoreInCache(args);
}

// Integers in every block length that the readers ask for.
template <class T>
typename Forward<T>::DotInput Forward<T>::MakeDotInput(const T* x, size_t n, size_t tokens,
                                                       std::initializer_list<DotReader> readers) {
  DotInput in = {x, {}, {}};
  for (const auto& [op, name, w] : readers) {
    const Contract contract = rows_.For(op, layer_, name).row->contract;
    const size_t block = ActivationBlock(w.type);
    QuantizedView& view = block == 32 ? in.by_32 : in.by_256;
    if (contract == Contract::f32 || block == 0 || view.hi) continue;
    QuantizedBuffer& buffer = block == 32 ? by_32_ : by_256_;
    RunStep(rows_.Quantizer(contract, layer_), Op::quantize,
            buffer.Prepare(x, tokens, n, block, contract == Contract::q16));
    view = buffer.view();
  }
  return in;
}

template <class T>
QuantizedView Forward<T>::IntegersFor(const DotReader& reader, const DotInput& in) const {
  const size_t block = ActivationBlock(reader.w.type);
  const bool floats = rows_.For(reader.op, layer_, reader.name).row->contract == Contract::f32;
  return floats || block == 0 ? QuantizedView{} : block == 32 ? in.by_32 : in.by_256;
}

template <class T>
void Forward<T>::Matvec(Op op, std::string_view name, const WeightView& w, const float* bias,
                        const DotInput& in, T* y, size_t tokens, size_t y_stride,
                        T* y_before_bias) {
  Step(op,
       MatvecArgs<T>{w, bias, in.x, IntegersFor({op, name, w}, in), y, y_before_bias, tokens,
                     y_stride},
       name);
}

template <class T>
void Forward<T>::Norm(const T* x, const std::vector<float>& weight, T* y, size_t tokens) {
  Step(Op::rms_norm, RmsNormArgs<T>{x, weight.data(), y, tokens, config_.hidden, config_.rms_eps});
}

template class Forward<double>;
template class Forward<float>;

}  // namespace lab
