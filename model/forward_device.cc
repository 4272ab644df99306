// What a pass does differently on a device.
#include <algorithm>

#include "model/forward.h"

namespace lab {

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
  buffer(ids_, batch);
  buffer(position_on_device_, 1);
  for (const auto* v : {&cos_, &sin_, &residual_, &norm_, &projected_, &qkv_, &qkv_before_bias_,
                        &attn_ctx_, &swiglu_, &gate_, &up_, &silu_, &logits_})
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

// The graph stays as long as the same taps are wanted. A replay computes all of them anew; what
// they are copied from is shared with later steps, hence the Saves.
template <class T>
void Forward<T>::RunGraph(TapSink<T>* sink) {
  std::vector<bool> wants;
  for (int layer = kNoLayer; layer < static_cast<int>(config_.layers); ++layer)
    for (size_t tap = 0; tap < Taps().size(); ++tap)
      wants.push_back(sink && sink->Wants(static_cast<Tap>(tap), layer));
  if (wants != graph_wants_) {
    graph_wants_.clear();  // none, should the capture fail
    graph_taps_.clear();
    device_->Capture([&] { RunSteps(ids_.data(), true, sink); });
    graph_wants_ = wants;
  }
  device_->Replay();
  last_logits_ = std::span<const T>(logits_).first(config_.vocab);
  for (size_t i = 0; i < graph_taps_.size(); ++i) {
    TapView<T> view = graph_taps_[i];
    view.first_token = position_;
    device_->FetchSaved(i, const_cast<T*>(view.values));
    sink->OnTap(view);
  }
}

template void Forward<double>::PlaceOnDevice(size_t);
template void Forward<float>::PlaceOnDevice(size_t);
template void Forward<double>::RunGraph(TapSink<double>*);
template void Forward<float>::RunGraph(TapSink<float>*);

}  // namespace lab
