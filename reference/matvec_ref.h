#pragma once
#include <cstddef>
#include <vector>

#include "kernels/quantize.h"
#include "reference/dequant_ref.h"

namespace lab {

/// y[t * y_stride] = sum_c w[c] x[t, c] for every token, added in the order of c. Four tokens go
/// side by side: their chains of additions are independent, so the latency of one hides behind the
/// others', and each token's own sum has the same bits as alone.
template <class T>
void DotAllTokens(const float* w, const T* x, size_t cols, size_t tokens, T* y, size_t y_stride) {
  constexpr size_t kSideBySide = 4;
  size_t t = 0;
  for (; t + kSideBySide <= tokens; t += kSideBySide) {
    T sum[kSideBySide] = {};
    for (size_t c = 0; c < cols; ++c)
      for (size_t k = 0; k < kSideBySide; ++k)
        sum[k] += static_cast<T>(w[c]) * x[(t + k) * cols + c];
    for (size_t k = 0; k < kSideBySide; ++k) y[(t + k) * y_stride] = sum[k];
  }
  for (; t < tokens; ++t) {
    T sum = 0;
    for (size_t c = 0; c < cols; ++c) sum += static_cast<T>(w[c]) * x[t * cols + c];
    y[t * y_stride] = sum;
  }
}

/// The activations that integers stand for: scale * q.
template <class T>
std::vector<T> Reconstruct(const QuantizedView& xq, size_t tokens) {
  std::vector<T> x(tokens * xq.n);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<T>(xq.scale[i / xq.block]) * static_cast<T>(xq.Integer(i));
  return x;
}

/// y[t, r] = sum_c w[r, c] x[t, c], x taken from xq if that is not empty. Each weight is unpacked
/// once.
template <class T>
void MatvecRows(const WeightView& w, const T* x, const QuantizedView& xq, size_t tokens, T* y,
                size_t y_stride) {
  std::vector<T> reconstructed;
  if (xq.hi) x = (reconstructed = Reconstruct<T>(xq, tokens)).data();
  std::vector<float> row(w.cols);
  for (size_t r = 0; r < w.rows; ++r) {
    DequantRow(w.type, w.row(r), w.cols, row.data());
    DotAllTokens(row.data(), x, w.cols, tokens, y + r, y_stride);
  }
}

}  // namespace lab
