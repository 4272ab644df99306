#include "reference/matvec_ref.h"

#include "kernels/matvec.h"

namespace lab {
namespace {

template <class T>
void Matvec(const MatvecArgs<T>& a) {
  MatvecRows(a.w, a.x, a.xq, a.tokens, a.y, a.y_stride);
  for (size_t t = 0; t < a.tokens; ++t) {
    for (size_t r = 0; r < a.w.rows; ++r) {
      T& y = a.y[t * a.y_stride + r];
      if (a.y_before_bias) a.y_before_bias[t * a.y_stride + r] = y;
      if (a.bias) y += static_cast<T>(a.bias[r]);
    }
  }
}

}  // namespace

void MatvecOracle(const MatvecArgs<double>& a) {
  Matvec(a);
}
void MatvecRef(const MatvecArgs<float>& a) {
  Matvec(a);
}

}  // namespace lab
