#pragma once
#include <cmath>
#include <cstddef>

namespace lab {

/// cos[i], sin[i] of position * base^(-2i / head_dim), i < head_dim / 2. The angle is formed in
/// double for every backend: at position 32,767 one ulp of a float angle is 0.002 rad. T rounds the
/// result once.
template <class T>
void FillRopeAngles(float base, size_t head_dim, size_t position, T* cos, T* sin) {
  for (size_t i = 0; i < head_dim / 2; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
    const double angle =
        static_cast<double>(position) * std::pow(static_cast<double>(base), exponent);
    cos[i] = static_cast<T>(std::cos(angle));
    sin[i] = static_cast<T>(std::sin(angle));
  }
}

}  // namespace lab
