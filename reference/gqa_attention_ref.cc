#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/gqa_attention.h"
#include "reference/dequant_ref.h"

namespace lab {
namespace {

template <class T>
T Load(const T* full, const uint16_t* half, size_t i) {
  return half ? static_cast<T>(HalfToFloat(half[i])) : full[i];
}

template <class T>
void AttendOneHead(const GqaAttentionArgs<T>& a, size_t t, size_t h, std::vector<T>& p) {
  const size_t n = a.first_position + t + 1;
  const size_t kv_head = (a.first_head + h) / a.group;
  const T* q = a.q + t * a.q_stride + h * a.head_dim;
  T* y = a.y + t * a.y_stride + h * a.head_dim;

  const T root = std::sqrt(static_cast<T>(a.head_dim));
  for (size_t j = 0; j < n; ++j) {
    const size_t at = a.KeyOffset(kv_head, j, 0);
    T dot = 0;
    for (size_t i = 0; i < a.head_dim; ++i) dot += q[i] * Load(a.k, a.k16, at + i * a.key_block);
    p[j] = dot / root;
  }
  // Subtracting the largest score changes nothing in exact arithmetic and keeps exp in range.
  const T largest = *std::max_element(p.begin(), p.begin() + static_cast<ptrdiff_t>(n));
  T sum = 0;
  for (size_t j = 0; j < n; ++j) sum += p[j] = std::exp(p[j] - largest);
  std::fill_n(y, a.head_dim, T{0});
  for (size_t j = 0; j < n; ++j) {
    const size_t at = a.ValueOffset(kv_head, j, 0);
    for (size_t i = 0; i < a.head_dim; ++i) y[i] += p[j] / sum * Load(a.v, a.v16, at + i);
  }
}

template <class T>
void GqaAttention(const GqaAttentionArgs<T>& a) {
  std::vector<T> p(a.positions());
  for (size_t t = 0; t < a.tokens; ++t)
    for (size_t h = 0; h < a.heads; ++h) AttendOneHead(a, t, h, p);
}

}  // namespace

void GqaAttentionOracle(const GqaAttentionArgs<double>& a) {
  GqaAttention(a);
}
void GqaAttentionRef(const GqaAttentionArgs<float>& a) {
  GqaAttention(a);
}

}  // namespace lab
