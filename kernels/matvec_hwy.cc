// Ops matvec and down_proj.
#include <algorithm>

#include "kernels/matvec.h"
#include "kernels/scratch-inl.h"
#include "kernels/targets-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matvec_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
#include "kernels/dequant-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

void StoreSum(const MatvecArgs<float>& a, size_t r, size_t t, float sum) {
  const size_t at = t * a.y_stride + r;
  if (a.y_before_bias) a.y_before_bias[at] = sum;
  a.y[at] = a.bias ? sum + a.bias[r] : sum;
}

// One token: every weight is used once, straight from the registers it was unpacked in.
void MatvecOneToken(const MatvecArgs<float>& a) {
  WithBlock(a.w.type, [&](auto tag) LAB_LAMBDA {
    for (size_t r = 0; r < a.w.rows; ++r) {
      const uint8_t* const rows[1] = {a.w.row(r)};
      float sum[1];
      FusedDot<typename decltype(tag)::Type>(rows, a.x, a.w.cols, sum);
      StoreSum(a, r, 0, sum[0]);
    }
  });
}

// More tokens: a group of rows is unpacked once, small enough to stay in the second-level cache.
void MatvecTokens(const MatvecArgs<float>& a, float* unpacked) {
  const size_t n = a.w.cols;
  for (size_t r0 = 0; r0 < a.w.rows; r0 += kRowGroup) {
    const size_t rows = std::min(kRowGroup, a.w.rows - r0);
    for (size_t r = 0; r < rows; ++r) DequantRow(a.w.type, a.w.row(r0 + r), n, unpacked + r * n);
    DotAll(unpacked, n, rows, a.x, n, a.tokens, n,
           [&](size_t r, size_t t, float sum) LAB_LAMBDA { StoreSum(a, r0 + r, t, sum); });
  }
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(MatvecOneToken);
HWY_EXPORT(MatvecTokens);
void MatvecHwy(const MatvecArgs<float>& a) {
  if (a.tokens == 1) return HWY_DYNAMIC_DISPATCH(MatvecOneToken)(a);
  HWY_DYNAMIC_DISPATCH(MatvecTokens)(a, Scratch(kRowGroup * a.w.cols));
}
}  // namespace lab
#endif
