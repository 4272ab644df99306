#include "lab/binding.h"

#include <algorithm>
#include <cmath>

#include "kernels/half.h"
#include "kernels/rows8.h"
#include "model/kv_cache.h"
#include "model/rope_angles.h"

namespace lab {
namespace {

template <class T>
constexpr T kNan = std::numeric_limits<T>::quiet_NaN();
constexpr uint16_t kHalfNan = 0x7e00;

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
Binding<T>::Binding(const Case& c, Contract contract, bool half_kv, Alignment alignment)
    : c_(c), contract_(contract), half_kv_(half_kv), alignment_(alignment), args_(MakeArgs()) {}

// A copy of `n` values between paddings of at least 256, the first of them `past` values past a
// multiple of 64 bytes where buffers lie off alignment.
template <class T>
template <class To>
const To* Binding<T>::Padded(std::deque<AlignedVector<To>>& pool, const To* values, size_t n,
                             To padding, size_t past) {
  const size_t before = 256 + (alignment_ == Alignment::on ? 0 : past);
  AlignedVector<To>& copy = pool.emplace_back(before + n + 256, padding);
  std::copy_n(values, n, copy.data() + before);
  return copy.data() + before;
}

template <class T>
const T* Binding<T>::Input(const std::vector<float>& values) {
  const std::vector<T> converted(values.begin(), values.end());
  return Padded(inputs_, converted.data(), converted.size(), kNan<T>);
}

template <class T>
const float* Binding<T>::Floats(const std::vector<float>& values) {
  if (values.empty()) return nullptr;
  return Padded(floats_, values.data(), values.size(), kNan<float>);
}

// Two bytes past is the alignment of every block; F32 weights are floats and need four.
template <class T>
WeightView Binding<T>::Weight(const WeightView& w) {
  const size_t past = w.type == BlockType::F32 ? 4 : 2;
  WeightView view = {w.type, Padded(weights_, w.data, w.bytes(), uint8_t{0xff}, past), w.rows,
                     w.cols};
  if (const std::vector<uint8_t> rows8 = RepackedRows8(w); !rows8.empty())
    view.rows8 = Padded(weights_, rows8.data(), rows8.size(), uint8_t{0xff}, past);
  return view;
}

template <class T>
QuantizedView Binding<T>::Integers(const WeightView& w) {
  const QuantizedBuffer buffer = QuantizeCase(c_, contract_, w);
  QuantizedView view = buffer.view();
  if (!view.hi) return view;
  const size_t values = c_.tokens * view.n;
  view.hi = Padded(planes_, view.hi, values, int8_t{-128});
  if (view.lo) view.lo = Padded(planes_, view.lo, values, int8_t{-128});
  view.scale = Padded(floats_, view.scale, values / view.block, kNan<float>);
  view.sums = Padded(sums_, view.sums, values / 16, std::numeric_limits<int32_t>::max());
  return view;
}

template <class T>
T* Binding<T>::Output(const char* name, size_t tokens, size_t n) {
  return outputs_.emplace_back(name, tokens, n, alignment_).data();
}

template <class T>
bool Binding<T>::guards_intact() const {
  return (!integers_ || (integers_->hi.guards_intact() && integers_->lo.guards_intact() &&
                         integers_->scale.guards_intact() && integers_->sums.guards_intact())) &&
         std::all_of(outputs_.begin(), outputs_.end(),
                     [](const auto& o) { return o.guards_intact(); });
}

template <class T>
void Binding<T>::PoisonOutputs() {
  for (auto& output : outputs_) output.Poison();
  if (!integers_) return;
  integers_->hi.Poison();
  integers_->lo.Poison();
  integers_->scale.Poison();
  integers_->sums.Poison();
}

template <class T>
GateUpArgs<T> Binding<T>::MakeGateUp() {
  T* gate = Output("gate", c_.tokens, c_.w.rows);
  T* up = Output("up", c_.tokens, c_.w.rows);
  return {Weight(c_.w), Weight(c_.w_up), Input(c_.x), Integers(c_.w), Integers(c_.w_up), gate,
          up,           c_.tokens,       c_.w.rows};
}

template <class T>
QuantizeArgs<T> Binding<T>::MakeQuantize() {
  const size_t tokens = c_.tokens, n = c_.n(), block = n % 256 == 0 ? 256 : 32;
  IntegerOutputs& out = integers_.emplace(
      IntegerOutputs{{"hi", tokens, n, alignment_},
                     {"lo", contract_ == Contract::q16 ? tokens : 0, n, alignment_},
                     {"scale", tokens, n / block, alignment_},
                     {"sums", tokens, n / 16, alignment_}});
  Output("q", tokens, n);
  Output("scale", tokens, n / block);
  Output("sums", tokens, n / 16);
  return {Input(c_.x),
          out.hi.data(),
          out.lo.size() ? out.lo.data() : nullptr,
          out.scale.data(),
          out.sums.data(),
          tokens,
          n,
          block};
}

// Integers as values of the element type, so that they are judged like any other output.
template <class T>
void Binding<T>::CollectIntegers() {
  if (!integers_) return;
  const IntegerOutputs& in = *integers_;
  QuantizedView view;
  view.hi = in.hi.data();
  view.lo = in.lo.size() ? in.lo.data() : nullptr;
  for (size_t i = 0; i < in.hi.size(); ++i) outputs_[0].data()[i] = static_cast<T>(view.Integer(i));
  std::copy_n(in.scale.data(), in.scale.size(), outputs_[1].data());
  std::copy_n(in.sums.data(), in.sums.size(), outputs_[2].data());
}

template <class T>
RopeArgs<T> Binding<T>::MakeRope() {
  const size_t half = c_.head_dim / 2;
  std::vector<T> cos(c_.tokens * half), sin(c_.tokens * half);
  for (size_t t = 0; t < c_.tokens; ++t)
    FillRopeAngles(c_.rope_base, c_.head_dim, c_.first_position + t, &cos[t * half],
                   &sin[t * half]);
  return {Input(c_.x),
          Output("y", c_.tokens, c_.n()),
          Padded(inputs_, cos.data(), cos.size(), kNan<T>),
          Padded(inputs_, sin.data(), sin.size(), kNan<T>),
          c_.tokens,
          c_.heads,
          c_.head_dim,
          c_.n(),
          c_.first_position,
          c_.rope_base};
}

// Keys and values lie as in a pass.
template <class T>
GqaAttentionArgs<T> Binding<T>::MakeAttention() {
  GqaAttentionArgs<T> args = {};
  args.q = Input(c_.x);
  args.y = Output("y", c_.tokens, c_.n());
  args.tokens = c_.tokens;
  args.first_position = c_.first_position;
  args.heads = c_.heads;
  args.group = c_.heads / c_.kv_heads;
  args.head_dim = c_.head_dim;
  args.q_stride = args.y_stride = c_.n();

  const std::vector<T> k(c_.k.begin(), c_.k.end()), v(c_.v.begin(), c_.v.end());
  const KvType type = half_kv_ ? KvType::f16 : KvType::f32;
  KvCache<T> cache(type, 1, c_.kv_heads, c_.head_dim, args.positions());
  cache.Allocate(false);
  KvStoreArgs<T> store = {{}, k.data(), v.data(), args.positions(), c_.kv_heads * c_.head_dim, 0};
  cache.Bind(0, store);
  StoreInCache(store);
  cache.Bind(0, args);
  if (half_kv_) {
    args.k16 = Padded(halves_, args.k16, args.KeyExtent(), kHalfNan);
    args.v16 = Padded(halves_, args.v16, args.ValueExtent(), kHalfNan);
  } else {
    args.k = Padded(inputs_, args.k, args.KeyExtent(), kNan<T>);
    args.v = Padded(inputs_, args.v, args.ValueExtent(), kNan<T>);
  }
  return args;
}

template <class T>
AnyArgs<T> Binding<T>::MakeArgs() {
  const size_t tokens = c_.tokens, n = c_.n();
  switch (c_.op) {
    case Op::q4k_dequant:
    case Op::q6k_dequant:
      return DequantArgs<T>{Weight(c_.w), Output("y", c_.w.rows, c_.w.cols)};
    case Op::embed:
      return EmbedArgs<T>{Weight(c_.w), c_.ids.data(), Output("y", tokens, c_.w.cols), tokens};
    case Op::rms_norm:
      return RmsNormArgs<T>{Input(c_.x), Floats(c_.vector), Output("y", tokens, n), tokens, n,
                            c_.eps};
    case Op::quantize:
      return MakeQuantize();
    case Op::matvec:
    case Op::down_proj: {
      T* y = Output("y", tokens, c_.w.rows);
      T* before = c_.vector.empty() ? nullptr : Output("y_before_bias", tokens, c_.w.rows);
      return MatvecArgs<T>{Weight(c_.w), Floats(c_.vector), Input(c_.x), Integers(c_.w), y, before,
                           tokens,       c_.w.rows};
    }
    case Op::gate_up:
      return MakeGateUp();
    case Op::gate_up_swiglu: {
      const GateUpArgs<T> gate_up = MakeGateUp();
      T* silu = Output("silu", tokens, c_.w.rows);
      return GateUpSwigluArgs<T>{gate_up, silu, Output("y", tokens, c_.w.rows)};
    }
    case Op::rope:
      return MakeRope();
    case Op::gqa_attention:
      return MakeAttention();
    case Op::residual_add:
      return ResidualAddArgs<T>{Input(c_.x), Input(c_.x2), Output("y", tokens, n), tokens * n};
    case Op::silu:
      return SiluArgs<T>{Input(c_.x), Output("y", tokens, n), tokens * n};
    case Op::swiglu:
      return SwigluArgs<T>{Input(c_.x), Input(c_.x2), Output("y", tokens, n), tokens * n};
  }
  return {};
}

template class Binding<float>;
template class Binding<double>;

}  // namespace lab
