#include "lab/sketch.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "lab/random.h"

namespace lab {
namespace {

constexpr size_t kWidth = Sketch::kProjections;

// In place: y[k] = sum_j (-1)^popcount(k & j) x[j].
void HadamardTransform(double* x) {
  for (size_t half = 1; half < kWidth; half *= 2)
    for (size_t i = 0; i < kWidth; i += 2 * half)
      for (size_t j = i; j < i + half; ++j) {
        const double a = x[j], b = x[j + half];
        x[j] = a + b;
        x[j + half] = a - b;
      }
}

double WithSign(double x, uint64_t signs, size_t bit) {
  return signs >> bit & 1 ? -x : x;
}

}  // namespace

template <class T>
Sketch MakeSketch(const T* values, size_t n) {
  Sketch sketch;
  sketch.hash = 0xcbf29ce484222325;  // FNV-1a's offset and, below, prime
  for (size_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<uint32_t>(static_cast<float>(values[i]));
    for (int shift = 0; shift < 32; shift += 8)
      sketch.hash = (sketch.hash ^ (bits >> shift & 0xff)) * 0x100000001b3;
  }
  Random random(0);
  for (size_t first = 0; first < n; first += kWidth) {
    const uint64_t signs_in = random.Next(), signs_out = random.Next();
    double block[kWidth] = {};
    for (size_t j = 0; j < std::min(kWidth, n - first); ++j)
      block[j] = WithSign(values[first + j], signs_in, j);
    HadamardTransform(block);
    for (size_t k = 0; k < kWidth; ++k) sketch.projections[k] += WithSign(block[k], signs_out, k);
  }
  return sketch;
}

template Sketch MakeSketch(const float* values, size_t n);
template Sketch MakeSketch(const double* values, size_t n);

SketchDistance DistanceOf(const Sketch& a, const Sketch& b) {
  // The millionth quantiles of chi2 with 64 degrees of freedom, over 64: 0.371 and 2.075.
  constexpr double kLow = 0.371, kHigh = 2.075;
  constexpr double kRounding = 5e-9;  // of the nine digits in a file
  double least = 0, squares = 0, most = 0;
  for (size_t k = 0; k < kWidth; ++k) {
    const double x = a.projections[k], y = b.projections[k];
    const double apart = std::abs(x - y), rounding = kRounding * (std::abs(x) + std::abs(y));
    const double low = std::max(0.0, apart - rounding), high = apart + rounding;
    least += low * low, squares += apart * apart, most += high * high;
  }
  return {std::sqrt(least / kWidth / kHigh), std::sqrt(squares / kWidth),
          std::sqrt(most / kWidth / kLow)};
}

}  // namespace lab
