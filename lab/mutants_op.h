#pragma once
// Mutants of the pointwise ops, rms_norm, rope, embed, residual_add and quantize. Included by
// lab/mutants.cc alone.
#include <cmath>
#include <numbers>
#include <numeric>

#include "lab/mutants_sum.h"
#include "model/rope_angles.h"

namespace lab {

// --- silu and swiglu ---------------------------------------------------------------------------

template <class T>
T TrueSilu(T x) {
  return x / (1 + std::exp(-x));
}

/// The fused row with y = f(gate, silu, up) of the steps that it shows.
template <class T, class F>
bool RecomputeY(GateUpSwigluArgs<T> a, const Inner& inner, F f) {
  const size_t tokens = a.gate_up.tokens, stride = a.gate_up.y_stride;
  std::vector<T> steps(a.silu ? 0 : 3 * tokens * stride);
  if (!a.silu) {
    a.gate_up.gate = steps.data();
    a.gate_up.up = a.gate_up.gate + tokens * stride;
    a.silu = a.gate_up.up + tokens * stride;
  }
  inner(a);
  for (size_t t = 0; t < tokens; ++t)
    for (size_t at = t * stride; at < t * stride + a.Items(); ++at)
      a.y[at] = f(a.gate_up.gate[at], a.silu[at], a.gate_up.up[at]);
  return true;
}

template <class F>
struct Pointwise {
  template <class T>
  bool operator()(const GateUpSwigluArgs<T>& a, const Inner& inner) const {
    return RecomputeY(a, inner, [](T gate, T, T up) { return F::Of(gate) * up; });
  }
  template <class T>
  bool operator()(const SiluArgs<T>& a, const Inner&) const {
    for (size_t i = 0; i < a.n; ++i) a.y[i] = F::Of(a.x[i]);
    return true;
  }
};
struct Gelu {
  template <class T>
  static T Of(T x) {
    return x / 2 * (1 + std::erf(x / std::numbers::sqrt2_v<T>));
  }
};
struct QuickGelu {
  template <class T>
  static T Of(T x) {
    return x / (1 + std::exp(-T{1.702} * x));
  }
};
struct Relu {
  template <class T>
  static T Of(T x) {
    return x > 0 ? x : T{0};
  }
};
struct Sigmoid {
  template <class T>
  static T Of(T x) {
    return 1 / (1 + std::exp(-x));
  }
};
/// Highway's Exp gives 0 above 104, hence x / (1 + 0).
struct ExpOverflow {
  template <class T>
  static T Of(T x) {
    return -x > 104 ? x : TrueSilu(x);
  }
};
struct SiluF16 {
  template <class T>
  static T Of(T x) {
    return RoundToHalf::Round(static_cast<float>(TrueSilu(x)));
  }
};

template <class F>
struct Product {
  template <class T>
  bool operator()(const GateUpSwigluArgs<T>& a, const Inner& inner) const {
    return RecomputeY(a, inner, [](T, T silu, T up) { return F::Of(silu, up); });
  }
  template <class T>
  bool operator()(const SwigluArgs<T>& a, const Inner&) const {
    for (size_t i = 0; i < a.n; ++i) a.y[i] = F::Of(a.silu[i], a.up[i]);
    return true;
  }
};
struct ProductAdds {
  template <class T>
  static T Of(T silu, T up) {
    return silu + up;
  }
};
struct SiluOnUp {
  template <class T>
  static T Of(T silu, T up) {
    return silu * TrueSilu(up);
  }
};
struct ProductBf16 {
  template <class T>
  static T Of(T silu, T up) {
    return RoundToBf16::Round(static_cast<float>(silu * up));
  }
};
struct SwigluNeighbour {
  template <class T>
  bool operator()(const SwigluArgs<T>& a, const Inner& inner) const {
    if (a.n < 2) return false;
    std::vector<T> up(a.up, a.up + a.n);
    std::rotate(up.begin(), up.begin() + 1, up.end());
    SwigluArgs<T> changed = a;
    changed.up = up.data();
    inner(changed);
    return true;
  }
};

// --- rms_norm ----------------------------------------------------------------------------------

template <class T>
bool WithNormWeight(const RmsNormArgs<T>& a, const Inner& inner, float (*weight)(float)) {
  std::vector<float> changed_weight(a.weight, a.weight + a.n);
  for (float& w : changed_weight) w = weight(w);
  RmsNormArgs<T> changed = a;
  changed.weight = changed_weight.data();
  inner(changed);
  return true;
}
struct NormWeightOmitted {
  template <class T>
  bool operator()(const RmsNormArgs<T>& a, const Inner& inner) const {
    return WithNormWeight(a, inner, [](float) { return 1.0f; });
  }
};
struct NormWeightPlusOne {
  template <class T>
  bool operator()(const RmsNormArgs<T>& a, const Inner& inner) const {
    return WithNormWeight(a, inner, [](float w) { return 1 + w; });
  }
};
struct NormEps {
  template <class T>
  bool operator()(const RmsNormArgs<T>& a, const Inner& inner) const {
    RmsNormArgs<T> changed = a;
    changed.eps = 1e-5f;
    inner(changed);
    return a.eps != changed.eps;
  }
};
/// y = x * weight / root(token), where root gets one token's values.
template <class T, class Root>
bool DirectNorm(const RmsNormArgs<T>& a, Root root) {
  for (size_t t = 0; t < a.tokens; ++t) {
    const T* x = a.x + t * a.n;
    const double divisor = root(x);
    for (size_t i = 0; i < a.n; ++i)
      a.y[t * a.n + i] = static_cast<T>(static_cast<double>(x[i]) / divisor) * a.weight[i];
  }
  return true;
}
template <class T>
double SumOfSquares(const T* x, size_t n) {
  return std::accumulate(x, x + n, 0.0, [](double sum, T v) {
    return sum + static_cast<double>(v) * static_cast<double>(v);
  });
}
struct NormEpsOutside {
  template <class T>
  bool operator()(const RmsNormArgs<T>& a, const Inner&) const {
    return DirectNorm(a, [&](const T* x) {
      return std::sqrt(SumOfSquares(x, a.n) / static_cast<double>(a.n)) + a.eps;
    });
  }
};
struct NormLastMissed {
  template <class T>
  bool operator()(const RmsNormArgs<T>& a, const Inner&) const {
    return DirectNorm(a, [&](const T* x) {
      return std::sqrt(SumOfSquares(x, a.n - 1) / static_cast<double>(a.n) + a.eps);
    });
  }
};
struct NormSubtractsMean {
  template <class T>
  bool operator()(const RmsNormArgs<T>& a, const Inner& inner) const {
    std::vector<T> x(a.x, a.x + a.tokens * a.n);
    for (size_t t = 0; t < a.tokens; ++t) {
      T* token = &x[t * a.n];
      const T mean = std::accumulate(token, token + a.n, T{0}) / static_cast<T>(a.n);
      for (size_t i = 0; i < a.n; ++i) token[i] -= mean;
    }
    RmsNormArgs<T> changed = a;
    changed.x = x.data();
    inner(changed);
    return true;
  }
};

// --- rope --------------------------------------------------------------------------------------

/// Runs the row on tables filled by fill(position, cos, sin) for every token.
template <class T, class Fill>
bool WithAngles(const RopeArgs<T>& a, const Inner& inner, Fill fill) {
  const size_t half = a.head_dim / 2;
  std::vector<T> cos(a.tokens * half), sin(a.tokens * half);
  for (size_t t = 0; t < a.tokens; ++t) fill(a.first_position + t, &cos[t * half], &sin[t * half]);
  RopeArgs<T> changed = a;
  changed.cos = cos.data();
  changed.sin = sin.data();
  inner(changed);
  return true;
}
struct RopePositionOffByOne {
  template <class T>
  bool operator()(const RopeArgs<T>& a, const Inner& inner) const {
    return WithAngles(a, inner, [&](size_t position, T* cos, T* sin) {
      FillRopeAngles(a.base, a.head_dim, position + 1, cos, sin);
    });
  }
};
struct RopeBase {
  template <class T>
  bool operator()(const RopeArgs<T>& a, const Inner& inner) const {
    return WithAngles(a, inner, [&](size_t position, T* cos, T* sin) {
      FillRopeAngles(1e4f, a.head_dim, position, cos, sin);
    });
  }
};
struct RopeFirstToken {
  template <class T>
  bool operator()(const RopeArgs<T>& a, const Inner& inner) const {
    return a.tokens > 1 && WithAngles(a, inner, [&](size_t, T* cos, T* sin) {
             FillRopeAngles(a.base, a.head_dim, a.first_position, cos, sin);
           });
  }
};
struct RopeFloat32Angles {
  template <class T>
  bool operator()(const RopeArgs<T>& a, const Inner& inner) const {
    return WithAngles(a, inner, [&](size_t position, T* cos, T* sin) {
      for (size_t i = 0; i < a.head_dim / 2; ++i) {
        const float exponent = -2.0f * static_cast<float>(i) / static_cast<float>(a.head_dim);
        const float angle = static_cast<float>(position) * std::pow(a.base, exponent);
        cos[i] = static_cast<T>(std::cos(angle));
        sin[i] = static_cast<T>(std::sin(angle));
      }
    });
  }
};
struct RopeSign {
  template <class T>
  bool operator()(const RopeArgs<T>& a, const Inner& inner) const {
    return WithAngles(a, inner, [&](size_t position, T* cos, T* sin) {
      FillRopeAngles(a.base, a.head_dim, position, cos, sin);
      for (size_t i = 0; i < a.head_dim / 2; ++i) sin[i] = -sin[i];
    });
  }
};
struct RopeInterleaved {
  template <class T>
  bool operator()(const RopeArgs<T>& a, const Inner&) const {
    const size_t half = a.head_dim / 2;
    for (size_t t = 0; t < a.tokens; ++t)
      for (size_t h = 0; h < a.heads; ++h)
        for (size_t i = 0; i < half; ++i) {
          const size_t at = t * a.stride + h * a.head_dim + 2 * i;
          const T x = a.x[at], y = a.x[at + 1];
          const T c = a.cos[t * half + i], s = a.sin[t * half + i];
          a.y[at] = x * c - y * s;
          a.y[at + 1] = y * c + x * s;
        }
    return true;
  }
};

// --- embed and residual_add --------------------------------------------------------------------

struct EmbedNextRow {
  template <class T>
  bool operator()(const EmbedArgs<T>& a, const Inner& inner) const {
    std::vector<int32_t> ids(a.ids, a.ids + a.tokens);
    for (int32_t& id : ids) id = (id + 1) % static_cast<int32_t>(a.table.rows);
    EmbedArgs<T> changed = a;
    changed.ids = ids.data();
    inner(changed);
    return a.table.rows > 1;
  }
};
struct EmbedScaled {
  template <class T>
  bool operator()(const EmbedArgs<T>& a, const Inner& inner) const {
    inner(a);
    const auto factor = static_cast<T>(std::sqrt(static_cast<double>(a.table.cols)));
    for (size_t i = 0; i < a.tokens * a.table.cols; ++i) a.y[i] *= factor;
    return true;
  }
};
struct ResidualDropped {
  template <class T>
  bool operator()(const ResidualAddArgs<T>& a, const Inner&) const {
    std::copy_n(a.b, a.n, a.y);
    return true;
  }
};
struct ResidualTwice {
  template <class T>
  bool operator()(const ResidualAddArgs<T>& a, const Inner&) const {
    for (size_t i = 0; i < a.n; ++i) a.y[i] = a.a[i] + a.b[i] + a.b[i];
    return true;
  }
};
struct ResidualBf16 {
  template <class T>
  bool operator()(const ResidualAddArgs<T>& a, const Inner&) const {
    for (size_t i = 0; i < a.n; ++i)
      a.y[i] = RoundToBf16::Round(static_cast<float>(a.a[i] + a.b[i]));
    return true;
  }
};

// --- quantize ----------------------------------------------------------------------------------

/// The quantiser with another rounding (Mode::Round) or another measure of the block (Mode::Size).
template <class Mode>
struct Requantize {
  template <class T>
  bool operator()(const QuantizeArgs<T>& a, const Inner& inner) const {
    inner(a);  // leaves what is not finite as it should be
    const float largest = a.lo ? 32512 : 127;
    for (size_t first = 0; first < a.tokens * a.n; first += a.block) {
      float size = 0;
      bool finite = true;
      for (size_t i = first; i < first + a.block; ++i) {
        const auto x = static_cast<float>(a.x[i]);
        finite &= std::isfinite(x);
        size = std::max(size, Mode::Size(x));
      }
      const float r = largest / size;
      if (!finite || !std::isfinite(r)) continue;
      a.scale[first / a.block] = size / largest;
      for (size_t i = first; i < first + a.block; ++i) {
        const float rounded = Mode::Round(static_cast<float>(a.x[i]) * r);
        const int q = static_cast<int>(std::clamp(rounded, -largest, largest));
        const int high = a.lo ? (q + 128) >> 8 : q;
        a.hi[i] = static_cast<int8_t>(high);
        if (a.lo) a.lo[i] = static_cast<int8_t>(q - 256 * high);
      }
    }
    const QuantizedView written = {a.hi, a.lo, a.scale, a.sums, a.n, a.block};
    for (size_t s = 0; s < a.tokens * a.n / 16; ++s) {
      a.sums[s] = 0;
      for (size_t i = 0; i < 16; ++i) a.sums[s] += written.Integer(16 * s + i);
    }
    return true;
  }
};
struct Truncates {
  static float Size(float x) { return std::abs(x); }
  static float Round(float q) { return std::trunc(q); }
};
struct TiesAway {
  static float Size(float x) { return std::abs(x); }
  static float Round(float q) { return std::round(q); }
};
struct SignedMax {
  static float Size(float x) { return x; }
  static float Round(float q) { return std::nearbyint(q); }
};
struct QuantizeScale {
  template <class T>
  bool operator()(const QuantizeArgs<T>& a, const Inner& inner) const {
    inner(a);
    for (size_t b = 0; b < a.tokens * a.n / a.block; ++b) a.scale[b] *= 127.0f / 128;
    return true;
  }
};

}  // namespace lab
