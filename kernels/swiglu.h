#pragma once
#include <cstddef>

namespace lab {

/// Op swiglu, the multiply of SwiGLU (Shazeer 2020): y[i] = silu[i] * up[i].
template <class T>
struct SwigluArgs {
  const T* silu;  ///< [n], the output of op silu
  const T* up;    ///< [n]
  T* y;           ///< [n]; may be silu or up
  size_t n;

  size_t Items() const { return n; }
  size_t Work() const { return n; }
  size_t Bytes() const { return 3 * n * sizeof(T); }
  SwigluArgs Slice(size_t begin, size_t end) const {
    return {silu + begin, up + begin, y + begin, end - begin};
  }
};

}  // namespace lab
