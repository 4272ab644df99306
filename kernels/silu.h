#pragma once
#include <cstddef>

namespace lab {

/// Op silu: y[i] = x[i] / (1 + exp(-x[i])). As the formula does, -inf gives NaN.
template <class T>
struct SiluArgs {
  const T* x;  ///< [n]
  T* y;        ///< [n]; may be x
  size_t n;

  size_t Items() const { return n; }
  size_t Work() const { return 8 * n; }
  size_t Bytes() const { return 2 * n * sizeof(T); }
  SiluArgs Slice(size_t begin, size_t end) const { return {x + begin, y + begin, end - begin}; }
};

}  // namespace lab
