#include <cmath>
#include <limits>

#include "kernels/quantize.h"

namespace lab {
namespace {

template <class T>
void QuantizeBlock(const T* x, size_t n, float largest, int8_t* hi, int8_t* lo, float* scale) {
  float amax = 0;
  bool finite = true;
  for (size_t i = 0; i < n; ++i) {
    const float magnitude = std::abs(static_cast<float>(x[i]));
    finite &= std::isfinite(magnitude);
    if (magnitude > amax) amax = magnitude;
  }
  const float r = largest / amax;
  const bool zeros = !finite || !std::isfinite(r);
  *scale = !finite ? std::numeric_limits<float>::quiet_NaN() : zeros ? 0.0f : amax / largest;
  for (size_t i = 0; i < n; ++i) {
    const int q = zeros ? 0 : static_cast<int>(std::nearbyint(static_cast<float>(x[i]) * r));
    const int high = lo ? (q + 128) >> 8 : q;  // rounds down, so that lo is in [-128, 127]
    hi[i] = static_cast<int8_t>(high);
    if (lo) lo[i] = static_cast<int8_t>(q - 256 * high);
  }
}

template <class T>
void Quantize(const QuantizeArgs<T>& a, float largest) {
  const QuantizedView written = {a.hi, a.lo, a.scale, a.sums, a.n, a.block};
  for (size_t first = 0; first < a.tokens * a.n; first += a.block)
    QuantizeBlock(a.x + first, a.block, largest, a.hi + first, a.lo ? a.lo + first : nullptr,
                  a.scale + first / a.block);
  for (size_t s = 0; s < a.tokens * a.n / 16; ++s) {
    a.sums[s] = 0;
    for (size_t i = 0; i < 16; ++i) a.sums[s] += written.Integer(16 * s + i);
  }
}

}  // namespace

void QuantizeQ8Oracle(const QuantizeArgs<double>& a) {
  Quantize(a, 127);
}
void QuantizeQ8Ref(const QuantizeArgs<float>& a) {
  Quantize(a, 127);
}
void QuantizeQ16Oracle(const QuantizeArgs<double>& a) {
  Quantize(a, 32512);
}
void QuantizeQ16Ref(const QuantizeArgs<float>& a) {
  Quantize(a, 32512);
}

}  // namespace lab
