#pragma once
#include <cstddef>

namespace lab {

/// Op rms_norm (Zhang & Sennrich 2019): y[t, i] = x[t, i] / sqrt(mean_j x[t, j]^2 + eps) *
/// weight[i].
template <class T>
struct RmsNormArgs {
  const T* x;           ///< [tokens, n]
  const float* weight;  ///< [n]
  T* y;                 ///< [tokens, n]; may be x
  size_t tokens, n;
  float eps;

  size_t Items() const { return tokens; }
  size_t Work() const { return 2 * tokens * n; }
  size_t Bytes() const { return n * sizeof(float) + 2 * tokens * n * sizeof(T); }
  RmsNormArgs Slice(size_t begin, size_t end) const {
    return {x + begin * n, weight, y + begin * n, end - begin, n, eps};
  }
};

}  // namespace lab
