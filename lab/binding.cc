#include "lab/binding.h"

#include <algorithm>
#include <cmath>

#include "kernels/half.h"
#include "model/rope_angles.h"

namespace lab {
namespace {

constexpr size_t kPadding = 64;  // values behind an input

}  // namespace

QuantizedBuffer QuantizeCase(const Case& c, Contract contract, const WeightView& w) {
  QuantizedBuffer integers;
  const size_t block = ActivationBlock(w.type);
  if (contract == Contract::f32 || block == 0) return integers;
  const auto args = integers.Prepare(c.x.data(), c.tokens, c.n(), block, contract == Contract::q16);
  RunRow(*FindRow(Op::quantize, contract, Backend::ref), args, 1);
  return integers;
}

template <class T>
Binding<T>::Binding(const Case& c, Contract contract, bool half_kv)
    : c_(c), contract_(contract), half_kv_(half_kv) {}

template <class T>
const T* Binding<T>::Input(const std::vector<float>& values) {
  std::vector<T>& copy = inputs_.emplace_back(values.begin(), values.end());
  copy.resize(values.size() + kPadding, std::numeric_limits<T>::quiet_NaN());
  return copy.data();
}

template <class T>
const float* Binding<T>::Floats(const std::vector<float>& values) {
  if (values.empty()) return nullptr;
  std::vector<float>& copy = floats_.emplace_back(values);
  copy.resize(values.size() + kPadding, std::numeric_limits<float>::quiet_NaN());
  return copy.data();
}

template <class T>
WeightView Binding<T>::Weight(const WeightView& w) {
  std::vector<uint8_t>& copy = weights_.emplace_back(w.data, w.data + w.bytes());
  copy.resize(w.bytes() + kPadding, 0xff);
  return {w.type, copy.data(), w.rows, w.cols};
}

template <class T>
T* Binding<T>::Output(const char* name, size_t tokens, size_t n) {
  return outputs_.emplace_back(name, tokens, n).data();
}

template <class T>
bool Binding<T>::guards_intact() const {
  return integer_guards_intact_ && std::all_of(outputs_.begin(), outputs_.end(),
                                               [](const auto& o) { return o.guards_intact(); });
}

template <class T>
bool Binding<T>::RunQuantize(const RowUse& use, int threads) {
  const size_t n = c_.n(), block = n % 256 == 0 ? 256 : 32;
  GuardedBuffer<int8_t> hi("hi", c_.tokens, n), lo("lo", c_.tokens, n);
  GuardedBuffer<float> scale("scale", c_.tokens, n / block);
  GuardedBuffer<int32_t> sums("sums", c_.tokens, n / 16);
  const bool two_planes = contract_ == Contract::q16;
  const bool changed =
      RunUse(use,
             QuantizeArgs<T>{Input(c_.x), hi.data(), two_planes ? lo.data() : nullptr, scale.data(),
                             sums.data(), c_.tokens, n, block},
             threads);
  integer_guards_intact_ =
      hi.guards_intact() && lo.guards_intact() && scale.guards_intact() && sums.guards_intact();
  const QuantizedView view = {hi.data(), two_planes ? lo.data() : nullptr, nullptr, nullptr, n,
                              block};
  T* q = Output("q", c_.tokens, n);
  for (size_t i = 0; i < hi.size(); ++i) q[i] = static_cast<T>(view.Integer(i));
  std::copy_n(scale.data(), scale.size(), Output("scale", c_.tokens, n / block));
  std::copy_n(sums.data(), sums.size(), Output("sums", c_.tokens, n / 16));
  return changed;
}

template <class T>
bool Binding<T>::RunRope(const RowUse& use, int threads) {
  const size_t half = c_.head_dim / 2;
  std::vector<T>& cos = inputs_.emplace_back(c_.tokens * half);
  std::vector<T>& sin = inputs_.emplace_back(c_.tokens * half);
  for (size_t t = 0; t < c_.tokens; ++t)
    FillRopeAngles(c_.rope_base, c_.head_dim, c_.first_position + t, &cos[t * half],
                   &sin[t * half]);
  return RunUse(
      use,
      RopeArgs<T>{Input(c_.x), Output("y", c_.tokens, c_.n()), cos.data(), sin.data(), c_.tokens,
                  c_.heads, c_.head_dim, c_.n(), c_.first_position, c_.rope_base},
      threads);
}

template <class T>
bool Binding<T>::RunAttention(const RowUse& use, int threads) {
  const size_t q_dim = c_.n(), kv_dim = c_.kv_heads * c_.head_dim;
  const auto half = [&](const std::vector<float>& values) {
    std::vector<uint16_t>& copy = halves_.emplace_back(values.size() + kPadding, uint16_t{0x7e00});
    std::transform(values.begin(), values.end(), copy.begin(), FloatToHalf);
    return copy.data();
  };
  GqaAttentionArgs<T> args = {};
  args.q = Input(c_.x);
  if (half_kv_) {
    args.k16 = half(c_.k);
    args.v16 = half(c_.v);
  } else {
    args.k = Input(c_.k);
    args.v = Input(c_.v);
  }
  args.y = Output("y", c_.tokens, q_dim);
  args.tokens = c_.tokens;
  args.first_position = c_.first_position;
  args.heads = c_.heads;
  args.group = c_.heads / c_.kv_heads;
  args.head_dim = c_.head_dim;
  args.q_stride = args.y_stride = q_dim;
  args.kv_stride = kv_dim;
  return RunUse(use, args, threads);
}

template <class T>
bool Binding<T>::Run(const RowUse& use, int threads) {
  outputs_.clear();
  const size_t tokens = c_.tokens, n = c_.n();
  const auto integers = [&](const WeightView& w) {
    return integers_.emplace_back(QuantizeCase(c_, contract_, w)).view();
  };
  switch (c_.op) {
    case Op::q4k_dequant:
    case Op::q6k_dequant:
      return RunUse(use, DequantArgs<T>{Weight(c_.w), Output("y", c_.w.rows, c_.w.cols)}, threads);
    case Op::embed:
      return RunUse(
          use, EmbedArgs<T>{Weight(c_.w), c_.ids.data(), Output("y", tokens, c_.w.cols), tokens},
          threads);
    case Op::rms_norm:
      return RunUse(
          use,
          RmsNormArgs<T>{Input(c_.x), Floats(c_.vector), Output("y", tokens, n), tokens, n, c_.eps},
          threads);
    case Op::quantize:
      return RunQuantize(use, threads);
    case Op::matvec:
    case Op::down_proj: {
      T* y = Output("y", tokens, c_.w.rows);
      T* before = c_.vector.empty() ? nullptr : Output("y_before_bias", tokens, c_.w.rows);
      return RunUse(use,
                    MatvecArgs<T>{Weight(c_.w), Floats(c_.vector), Input(c_.x), integers(c_.w), y,
                                  before, tokens, c_.w.rows},
                    threads);
    }
    case Op::gate_up: {
      T* gate = Output("gate", tokens, c_.w.rows);
      T* up = Output("up", tokens, c_.w.rows);
      return RunUse(use,
                    GateUpArgs<T>{Weight(c_.w), Weight(c_.w_up), Input(c_.x), integers(c_.w),
                                  integers(c_.w_up), gate, up, tokens, c_.w.rows},
                    threads);
    }
    case Op::rope:
      return RunRope(use, threads);
    case Op::gqa_attention:
      return RunAttention(use, threads);
    case Op::residual_add:
      return RunUse(
          use, ResidualAddArgs<T>{Input(c_.x), Input(c_.x2), Output("y", tokens, n), tokens * n},
          threads);
    case Op::silu:
      return RunUse(use, SiluArgs<T>{Input(c_.x), Output("y", tokens, n), tokens * n}, threads);
    case Op::swiglu:
      return RunUse(use,
                    SwigluArgs<T>{Input(c_.x), Input(c_.x2), Output("y", tokens, n), tokens * n},
                    threads);
  }
  return false;
}

template class Binding<float>;
template class Binding<double>;

}  // namespace lab
