#pragma once
#include <cstddef>

namespace lab {

/// Op residual_add: y[i] = a[i] + b[i].
template <class T>
struct ResidualAddArgs {
  const T* a;  ///< [n]
  const T* b;  ///< [n]
  T* y;        ///< [n]; may be a or b
  size_t n;

  size_t Items() const { return n; }
  size_t Work() const { return n; }
  size_t Bytes() const { return 3 * n * sizeof(T); }
  ResidualAddArgs Slice(size_t begin, size_t end) const {
    return {a + begin, b + begin, y + begin, end - begin};
  }
};

}  // namespace lab
