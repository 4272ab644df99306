#pragma once
// A sketch of a row: a hash of its bits and 64 random-sign projections, 264 bytes whatever the
// width. Two sketches give the distance of their rows without the rows.
#include <array>
#include <cstddef>
#include <cstdint>

namespace lab {

struct Sketch {
  static constexpr size_t kProjections = 64;
  uint64_t hash = 0;
  std::array<double, kProjections> projections = {};
};

/// hash: 64-bit FNV-1a over the bits of the values, rounded to float32 where they are doubles.
/// projections[k] = sum_i s_k(i) x_i with signs s_k(i) = +-1, so that the mean of (p_k(a) -
/// p_k(b))^2 over k estimates ||a - b||^2. Formed as a fast Hadamard transform of 64 values at a
/// time, with random signs before it and after it (after Ailon & Chazelle 2009); sums in float64.
template <class T>
Sketch MakeSketch(const T* values, size_t n);

/// Bounds of ||a - b|| that fail once in a million, and the estimate between them.
struct SketchDistance {
  double at_least, estimate, at_most;
};
SketchDistance DistanceOf(const Sketch& a, const Sketch& b);

}  // namespace lab
