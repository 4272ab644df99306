#pragma once
// Mutants and reorderings of the sums and activations of the dot products (matvec, down_proj,
// gate_up). Included by lab/mutants.cc alone.
#include <cmath>
#include <deque>

#include "kernels/half.h"
#include "lab/mutants_weight.h"

namespace lab {

/// The outputs of a dot product, the integers that it reads, and its width.
template <class T>
std::vector<T*> OutputsOf(const MatvecArgs<T>& a) {
  return {a.y};
}
template <class T>
std::vector<T*> OutputsOf(const GateUpArgs<T>& a) {
  return {a.gate, a.up};
}
template <class T>
std::vector<QuantizedView*> IntegersOf(MatvecArgs<T>& a) {
  return {&a.xq};
}
template <class T>
std::vector<QuantizedView*> IntegersOf(GateUpArgs<T>& a) {
  return {&a.xq_gate, &a.xq_up};
}
template <class A>
concept IsDot = requires(A a) {
  IntegersOf(a);
};

template <IsDot A>
bool HasIntegers(const A& args) {
  A copy = args;
  for (const QuantizedView* q : IntegersOf(copy))
    if (q->hi) return true;
  return false;
}

/// Columns [begin, end) of activations as integers; owns what it points to.
struct IntegerColumns {
  std::vector<int8_t> hi, lo;
  std::vector<float> scale;
  std::vector<int32_t> sums;

  QuantizedView Take(const QuantizedView& q, size_t tokens, size_t begin, size_t end) {
    const auto columns = [&](const auto* from, auto& to, size_t per) {
      for (size_t t = 0; from && t < tokens; ++t)
        to.insert(to.end(), from + (t * q.n + begin) / per, from + (t * q.n + end) / per);
      return from ? to.data() : nullptr;
    };
    return {columns(q.hi, hi, 1),      columns(q.lo, lo, 1), columns(q.scale, scale, q.block),
            columns(q.sums, sums, 16), end - begin,          q.block};
  }
};

template <class T>
WeightView FirstWeight(const MatvecArgs<T>& a) {
  return a.w;
}
template <class T>
WeightView FirstWeight(const GateUpArgs<T>& a) {
  return a.w_gate;
}

template <class T>
void SetOutputs(MatvecArgs<T>& a, std::vector<std::vector<T>>& sums) {
  a.bias = nullptr;
  a.y_before_bias = nullptr;
  a.y = sums[0].data();
}
template <class T>
void SetOutputs(GateUpArgs<T>& a, std::vector<std::vector<T>>& sums) {
  a.gate = sums[0].data();
  a.up = sums[1].data();
}

/// What the row makes of columns [begin, end) alone, without bias: [output][tokens * rows].
template <template <class> class Args, class T>
std::vector<std::vector<T>> PartialDot(const Args<T>& args, const Inner& inner, size_t begin,
                                       size_t end) {
  const size_t cols = FirstWeight(args).cols, rows = FirstWeight(args).rows;
  Args<T> part = args;
  std::vector<T> x;
  for (size_t t = 0; t < args.tokens; ++t)
    x.insert(x.end(), args.x + t * cols + begin, args.x + t * cols + end);
  part.x = x.data();
  std::vector<IntegerColumns> integers(2);
  size_t i = 0;
  for (QuantizedView* q : IntegersOf(part)) {
    if (q->hi) *q = integers[i].Take(*q, args.tokens, begin, end);
    ++i;
  }
  std::deque<std::vector<uint8_t>> weights;
  for (WeightView* w : WeightsOf(part)) {
    const size_t per_value = InfoOf(w->type).elements, bytes = InfoOf(w->type).bytes;
    std::vector<uint8_t>& copy = weights.emplace_back();
    for (size_t r = 0; r < w->rows; ++r)
      copy.insert(copy.end(), w->row(r) + begin / per_value * bytes,
                  w->row(r) + end / per_value * bytes);
    const bool repacked = w->rows8;
    *w = {w->type, copy.data(), w->rows, end - begin};
    if (repacked) w->rows8 = weights.emplace_back(RepackedRows8(*w)).data();
  }
  std::vector<std::vector<T>> sums(OutputsOf(args).size(), std::vector<T>(args.tokens * rows));
  SetOutputs(part, sums);
  part.y_stride = rows;
  inner(part);
  return sums;
}

template <class T>
void AddBias(const MatvecArgs<T>& a, size_t r, size_t at) {
  if (a.y_before_bias) a.y_before_bias[at] = a.y[at];
  if (a.bias) a.y[at] += static_cast<T>(a.bias[r]);
}
template <class T>
void AddBias(const GateUpArgs<T>&, size_t, size_t) {}

/// y = combine(partial sums of blocks of 256 columns, in order), for every output element. False if
/// there is only one block.
template <template <class> class Args, class T, class Combine>
bool Recombined(const Args<T>& args, const Inner& inner, Combine combine) {
  constexpr size_t kColumns = 256;
  const size_t cols = FirstWeight(args).cols, rows = FirstWeight(args).rows;
  if (cols <= kColumns) return false;
  std::vector<std::vector<std::vector<T>>> blocks;
  for (size_t c = 0; c < cols; c += kColumns)
    blocks.push_back(PartialDot(args, inner, c, std::min(c + kColumns, cols)));
  const std::vector<T*> outputs = OutputsOf(args);
  std::vector<T> terms(blocks.size());
  for (size_t o = 0; o < outputs.size(); ++o)
    for (size_t t = 0; t < args.tokens; ++t)
      for (size_t r = 0; r < rows; ++r) {
        for (size_t b = 0; b < blocks.size(); ++b) terms[b] = blocks[b][o][t * rows + r];
        outputs[o][t * args.y_stride + r] = combine(terms);
        AddBias(args, r, t * args.y_stride + r);
      }
  return true;
}

struct RoundToBf16 {
  static float Round(float x) { return std::bit_cast<float>(RoundedToBf16(x)); }
};
struct RoundToHalf {
  static float Round(float x) { return HalfToFloat(FloatToHalf(x)); }
};

template <class Rounding>
struct RoundedAccumulation {
  template <IsDot A>
  bool operator()(const A& args, const Inner& inner) const {
    return Recombined(args, inner, [](const auto& terms) {
      float sum = 0;
      for (const auto term : terms) sum = Rounding::Round(sum + static_cast<float>(term));
      return sum;
    });
  }
};

template <class Order>
struct Reordered {
  template <IsDot A>
  bool operator()(const A& args, const Inner& inner) const {
    return Recombined(args, inner, [](const auto& terms) { return Order::Sum(terms); });
  }
};
template <class T>
T SumOf(const std::vector<T>& terms, size_t begin, size_t end, size_t step) {
  T sum = 0;
  for (size_t i = begin; i < end; i += step) sum += terms[i];
  return sum;
}
struct Reversed {
  template <class T>
  static T Sum(const std::vector<T>& terms) {
    T sum = 0;
    for (size_t i = terms.size(); i-- > 0;) sum += terms[i];
    return sum;
  }
};
struct EvenThenOdd {
  template <class T>
  static T Sum(const std::vector<T>& terms) {
    return SumOf(terms, 0, terms.size(), 2) + SumOf(terms, 1, terms.size(), 2);
  }
};
struct SplitK {
  template <class T>
  static T Sum(const std::vector<T>& terms) {
    T sum = 0;
    for (size_t part = 0; part < 4; ++part)
      sum += SumOf(terms, terms.size() * part / 4, terms.size() * (part + 1) / 4, 1);
    return sum;
  }
};
struct Pairwise {
  template <class T>
  static T Sum(std::vector<T> terms) {
    for (; terms.size() > 1; terms.resize((terms.size() + 1) / 2))
      for (size_t i = 0; i < terms.size(); i += 2)
        terms[i / 2] = i + 1 < terms.size() ? terms[i] + terms[i + 1] : terms[i];
    return terms[0];
  }
};
struct DoubleSums {
  template <class T>
  static T Sum(const std::vector<T>& terms) {
    double sum = 0;
    for (const T term : terms) sum += static_cast<double>(term);
    return static_cast<T>(sum);
  }
};

/// Under q8 and q16 a BF16 matrix would bring float activations with it, a second mistake.
struct Bf16Weights {
  template <IsDot A>
  bool operator()(const A& args, const Inner& inner) const {
    if (HasIntegers(args)) return false;
    A changed = args;
    std::vector<std::vector<uint16_t>> copies;
    for (WeightView* w : WeightsOf(changed)) {
      std::vector<float> row(w->cols);
      std::vector<uint16_t>& bits = copies.emplace_back();
      for (size_t r = 0; r < w->rows; ++r) {
        DequantRow(w->type, w->row(r), w->cols, row.data());
        for (const float x : row) bits.push_back(static_cast<uint16_t>(RoundedToBf16(x) >> 16));
      }
      *w = {BlockType::BF16, reinterpret_cast<const uint8_t*>(bits.data()), w->rows, w->cols};
    }
    inner(changed);
    return true;
  }
};

struct Bf16Activations {
  template <template <class> class Args, class T>
  requires IsDot<Args<T>>
  bool operator()(const Args<T>& args, const Inner& inner) const {
    if (HasIntegers(args)) return false;
    std::vector<T> x(args.x, args.x + args.tokens * FirstWeight(args).cols);
    for (T& v : x) v = RoundToBf16::Round(static_cast<float>(v));
    Args<T> changed = args;
    changed.x = x.data();
    inner(changed);
    return true;
  }
};
/// A plane of zeros.
struct LowPlaneDropped {
  template <IsDot A>
  bool operator()(const A& args, const Inner& inner) const {
    A changed = args;
    const std::vector<int8_t> zeros(args.tokens * FirstWeight(args).cols);
    bool any = false;
    for (QuantizedView* q : IntegersOf(changed))
      if (q->lo) {
        q->lo = zeros.data();
        any = true;
      }
    if (any) inner(changed);
    return any;
  }
};
struct ActivationScaleOfNext {
  template <IsDot A>
  bool operator()(const A& args, const Inner& inner) const {
    A changed = args;
    std::vector<std::vector<float>> scales;
    for (QuantizedView* q : IntegersOf(changed)) {
      if (!q->hi) continue;
      std::vector<float>& scale =
          scales.emplace_back(q->scale, q->scale + args.tokens * q->n / q->block);
      std::rotate(scale.begin(), scale.begin() + 1, scale.end());
      q->scale = scale.data();
    }
    if (!scales.empty()) inner(changed);
    return !scales.empty();
  }
};
struct ActivationSumsZero {
  template <IsDot A>
  bool operator()(const A& args, const Inner& inner) const {
    A changed = args;
    const std::vector<int32_t> zeros(args.tokens * FirstWeight(args).cols / 16 + 1);
    bool any = false;
    const std::vector<WeightView*> weights = WeightsOf(changed);
    const std::vector<QuantizedView*> integers = IntegersOf(changed);
    for (size_t i = 0; i < weights.size(); ++i) {
      const bool has_min =
          weights[i]->type == BlockType::Q4_K || weights[i]->type == BlockType::Q5_K;
      if (!integers[i]->hi || !has_min) continue;  // not every row reads the sums
      integers[i]->sums = zeros.data();
      any = true;
    }
    if (any) inner(changed);
    return any;
  }
};
/// By running the tokens before the last, then the last but one in its place.
struct TokenRepeated {
  template <IsDot A>
  bool operator()(const A& args, const Inner& inner) const {
    if (args.tokens < 2) return false;
    inner(args);
    for (auto* y : OutputsOf(args)) {
      auto* last = y + (args.tokens - 1) * args.y_stride;
      std::copy_n(last - args.y_stride, FirstWeight(args).rows, last);
    }
    return true;
  }
};

struct BiasOmitted {
  template <class T>
  bool operator()(const MatvecArgs<T>& args, const Inner& inner) const {
    MatvecArgs<T> changed = args;
    changed.bias = nullptr;
    if (args.bias) inner(changed);
    return args.bias != nullptr;
  }
};
struct BiasTwice {
  template <class T>
  bool operator()(const MatvecArgs<T>& args, const Inner& inner) const {
    if (!args.bias) return false;
    inner(args);
    for (size_t t = 0; t < args.tokens; ++t)
      for (size_t r = 0; r < args.w.rows; ++r)
        args.y[t * args.y_stride + r] += static_cast<T>(args.bias[r]);
    return true;
  }
};
struct BiasOfNext {
  template <class T>
  bool operator()(const MatvecArgs<T>& args, const Inner& inner) const {
    if (!args.bias) return false;
    std::vector<float> bias(args.bias, args.bias + args.w.rows);
    std::rotate(bias.begin(), bias.begin() + 1, bias.end());
    MatvecArgs<T> changed = args;
    changed.bias = bias.data();
    inner(changed);
    return true;
  }
};
struct TapAfterBias {
  template <class T>
  bool operator()(const MatvecArgs<T>& args, const Inner& inner) const {
    if (!args.y_before_bias || !args.bias) return false;
    inner(args);
    for (size_t t = 0; t < args.tokens; ++t)
      std::copy_n(args.y + t * args.y_stride, args.w.rows, args.y_before_bias + t * args.y_stride);
    return true;
  }
};
struct GateUpSwapped {
  template <class T>
  bool operator()(const GateUpArgs<T>& args, const Inner& inner) const {
    GateUpArgs<T> changed = args;
    std::swap(changed.gate, changed.up);
    inner(changed);
    return true;
  }
  template <class T>
  bool operator()(const GateUpSwigluArgs<T>& args, const Inner& inner) const {
    GateUpSwigluArgs<T> changed = args;
    std::swap(changed.gate_up.w_gate, changed.gate_up.w_up);
    std::swap(changed.gate_up.xq_gate, changed.gate_up.xq_up);
    inner(changed);
    return true;
  }
};
struct UpFromGate {
  template <class T>
  bool operator()(const GateUpArgs<T>& args, const Inner& inner) const {
    GateUpArgs<T> changed = args;
    changed.w_up = args.w_gate;
    changed.xq_up = args.xq_gate;
    inner(changed);
    return true;
  }
  template <class T>
  bool operator()(const GateUpSwigluArgs<T>& args, const Inner& inner) const {
    GateUpSwigluArgs<T> changed = args;
    changed.gate_up.w_up = args.gate_up.w_gate;
    changed.gate_up.xq_up = args.gate_up.xq_gate;
    inner(changed);
    return true;
  }
};

}  // namespace lab
