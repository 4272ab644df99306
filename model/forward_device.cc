// What a pass does differently on a device.
#include <algorithm>
#include <utility>

#include "model/forward.h"

namespace lab {
namespace {

template <class T>
size_t BytesOf(const TapView<T>& view) {
  return ((view.tokens - 1) * view.stride + view.n) * sizeof(T);
}

// All that a graph has, one token's of every tap; any tap of a batch; and no less than lets a
// prefill run on for some layers before its sums are fetched.
size_t MostSums(const Qwen2Config& c, size_t batch) {
  constexpr size_t kNoLess = 1 << 14;  // 0.9 MB
  const size_t row = TapSums::Pieces(std::max({c.hidden, c.qkv_dim(), c.ffn}));
  const size_t logits = TapSums::Pieces(c.vocab);
  return std::max({(c.layers + 1) * Taps().size() * row + logits, batch * row,
                   Forward<float>::kLmHeadBatch * logits, kNoLess});
}

// How many of all sums belong to the taps.
template <class T>
size_t UsedSums(const std::vector<TapView<T>>& taps, const std::vector<TapSums>& all) {
  if (taps.empty()) return 0;
  const std::span<const TapSums> last = taps.back().sums;
  return static_cast<size_t>(last.data() + last.size() - all.data());
}

}  // namespace

// Names must not move: whatever grows when somebody looks has its full size from the start.
template <class T>
void Forward<T>::PlaceOnDevice(size_t batch) {
  const auto constant = [&](const std::vector<float>& v) {
    device_->KeepConstant(v.data(), v.size() * sizeof(float));
  };
  const auto buffer = [&](const auto& v, size_t n) {
    device_->KeepBuffer(v.data(), n * sizeof(v[0]));
  };
  for (const Qwen2Layer& w : model_.layers) {
    for (const auto* v : {&w.attn_norm, &w.q_bias, &w.k_bias, &w.v_bias, &w.ffn_norm}) constant(*v);
    for (const WeightView* m :
         {&w.attn_q, &w.attn_k, &w.attn_v, &w.attn_output, &w.ffn_gate, &w.ffn_up, &w.ffn_down})
      device_->KeepWeights(*m);
  }
  constant(model_.output_norm);
  device_->KeepWeights(model_.token_embd);
  device_->KeepWeights(model_.output);

  ids_.resize(batch);
  position_on_device_.resize(1);
  qkv_before_bias_.resize(qkv_.size());
  for (auto* v : {&gate_, &up_, &silu_}) v->resize(swiglu_.size());
  logits_.resize(std::min(batch, kLmHeadBatch) * config_.vocab);
  sums_.resize(MostSums(config_, batch));
  attention_scratch_.resize(
      AttentionSpans::At(config_.heads, 0, AttentionSpans::Count(kv_.positions())));
  buffer(ids_, batch);
  buffer(position_on_device_, 1);
  buffer(sums_, sums_.size());
  for (const auto* v : {&cos_, &sin_, &residual_, &norm_, &projected_, &qkv_, &qkv_before_bias_,
                        &attn_ctx_, &attention_scratch_, &swiglu_, &gate_, &up_, &silu_, &logits_})
    buffer(*v, v->size());
  for (const auto& [data, bytes] : kv_.buffers()) device_->KeepBuffer(data, bytes);

  const size_t widest = std::max({config_.hidden, config_.q_dim(), config_.ffn});
  for (const auto& [integers, block] : {std::pair(&by_256_, 256), {&by_32_, 32}}) {
    if (rows_.contract() == Contract::f32) break;
    integers->Prepare(residual_.data(), batch, widest, static_cast<size_t>(block),
                      rows_.contract() == Contract::q16);
    const QuantizedView& q = integers->view();
    const size_t values = batch * widest;
    for (const int8_t* plane : {q.hi, q.lo})
      if (plane) device_->KeepBuffer(plane, values);
    device_->KeepBuffer(q.scale, values / q.block * sizeof(float));
    device_->KeepBuffer(q.sums, values / 16 * sizeof(int32_t));
  }
  device_->Place();
}

// Values are fetched at once, since later steps overwrite them, and sums as late as there is room:
// waiting for each tap would leave the device idle.
template <class T>
void Forward<T>::ShowOnDevice(TapSink<T>* sink, const TapView<T>& view) {
  const bool in_graph = device_->capturing(), values = sink->WantsValues(view.tap, view.layer);
  const size_t sums =
      sink->WantsSums(view.tap, view.layer) ? view.tokens * TapSums::Pieces(view.n) : 0;
  if (!in_graph && UsedSums(pending_, sums_) + sums > sums_.size()) ShowPending(sink);
  TapSums* const to = sums_.data() + UsedSums(pending_, sums_);
  if constexpr (std::is_same_v<T, float>) {
    if (sums > 0) device_->SumRows({view.values, view.tokens, view.n, view.stride, to});
  }
  if (in_graph && values) device_->Save(view.values, BytesOf(view));
  pending_.push_back(view);
  if (!values) pending_.back().values = nullptr;
  pending_.back().sums = {to, sums};
  if (!in_graph && (values || UsedSums(pending_, sums_) == 0)) ShowPending(sink);
}

template <class T>
void Forward<T>::ShowPending(TapSink<T>* sink) {
  ShowTaps(pending_, false, sink);
  pending_.clear();
}

template <class T>
void Forward<T>::ShowTaps(const std::vector<TapView<T>>& taps, bool saved, TapSink<T>* sink) {
  if (const size_t sums = UsedSums(taps, sums_))
    device_->Fetch(sums_.data(), sums * sizeof(TapSums));
  size_t saves = 0;
  for (TapView<T> view : taps) {
    if (saved) view.first_token = position_;
    T* const values = const_cast<T*>(view.values);
    if (values && saved)
      device_->FetchSaved(saves++, values);
    else if (values)
      device_->Fetch(values, BytesOf(view));
    sink->OnTap(view);
  }
}

// The graph stays as long as the same of the same taps is wanted. A replay computes all of it anew;
// what values are copied from is shared with later steps, hence the Saves.
template <class T>
void Forward<T>::RunGraph(TapSink<T>* sink) {
  std::vector<bool> wants;
  for (int layer = kNoLayer; layer < static_cast<int>(config_.layers); ++layer)
    for (size_t tap = 0; tap < Taps().size(); ++tap)
      for (const auto what : {&TapSink<T>::Wants, &TapSink<T>::WantsValues, &TapSink<T>::WantsSums})
        wants.push_back(sink && (sink->*what)(static_cast<Tap>(tap), layer));
  if (wants != graph_wants_) {
    graph_wants_.clear();  // none, should the capture fail
    graph_taps_.clear();
    device_->Capture([&] { RunSteps(ids_.data(), true, sink); });
    graph_wants_ = wants;
    graph_taps_ = std::exchange(pending_, {});
  }
  device_->Replay();
  last_logits_ = std::span<const T>(logits_).first(config_.vocab);
  ShowTaps(graph_taps_, true, sink);
}

template void Forward<double>::PlaceOnDevice(size_t);
template void Forward<float>::PlaceOnDevice(size_t);
template void Forward<double>::ShowOnDevice(TapSink<double>*, const TapView<double>&);
template void Forward<float>::ShowOnDevice(TapSink<float>*, const TapView<float>&);
template void Forward<double>::ShowPending(TapSink<double>*);
template void Forward<float>::ShowPending(TapSink<float>*);
template void Forward<double>::ShowTaps(const std::vector<TapView<double>>&, bool,
                                        TapSink<double>*);
template void Forward<float>::ShowTaps(const std::vector<TapView<float>>&, bool, TapSink<float>*);
template void Forward<double>::RunGraph(TapSink<double>*);
template void Forward<float>::RunGraph(TapSink<float>*);

}  // namespace lab
