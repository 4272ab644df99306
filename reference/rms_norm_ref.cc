#include <cmath>

#include "kernels/rms_norm.h"

namespace lab {
namespace {

template <class T>
void RmsNorm(const RmsNormArgs<T>& a) {
  for (size_t t = 0; t < a.tokens; ++t) {
    const T* x = a.x + t * a.n;
    T sum = 0;
    for (size_t i = 0; i < a.n; ++i) sum += x[i] * x[i];
    const T rms = std::sqrt(sum / static_cast<T>(a.n) + static_cast<T>(a.eps));
    for (size_t i = 0; i < a.n; ++i) a.y[t * a.n + i] = x[i] / rms * static_cast<T>(a.weight[i]);
  }
}

}  // namespace

void RmsNormOracle(const RmsNormArgs<double>& a) {
  RmsNorm(a);
}
void RmsNormRef(const RmsNormArgs<float>& a) {
  RmsNorm(a);
}

}  // namespace lab
