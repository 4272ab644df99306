#include "kernels/rope.h"

namespace lab {
namespace {

template <class T>
void Rope(const RopeArgs<T>& a) {
  const size_t half = a.head_dim / 2;
  for (size_t t = 0; t < a.tokens; ++t) {
    for (size_t h = 0; h < a.heads; ++h) {
      const T* x = a.x + t * a.stride + h * a.head_dim;
      T* y = a.y + t * a.stride + h * a.head_dim;
      for (size_t i = 0; i < half; ++i) {
        const T first = x[i], second = x[i + half];
        const T c = a.cos[t * half + i], s = a.sin[t * half + i];
        y[i] = first * c - second * s;
        y[i + half] = second * c + first * s;
      }
    }
  }
}

}  // namespace

void RopeOracle(const RopeArgs<double>& a) {
  Rope(a);
}
void RopeRef(const RopeArgs<float>& a) {
  Rope(a);
}

}  // namespace lab
