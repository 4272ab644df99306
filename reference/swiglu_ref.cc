#include "kernels/swiglu.h"

namespace lab {
namespace {

template <class T>
void Swiglu(const SwigluArgs<T>& a) {
  for (size_t i = 0; i < a.n; ++i) a.y[i] = a.silu[i] * a.up[i];
}

}  // namespace

void SwigluOracle(const SwigluArgs<double>& a) {
  Swiglu(a);
}
void SwigluRef(const SwigluArgs<float>& a) {
  Swiglu(a);
}

}  // namespace lab
