// Ops matvec and down_proj under contracts q8 and q16.
#include "kernels/matvec.h"
#include "kernels/scratch-inl.h"
#include "kernels/targets-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matvec_int_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
#include "kernels/int_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

void StoreSum(const MatvecArgs<float>& a, size_t r, size_t t, float sum) {
  const size_t at = t * a.y_stride + r;
  if (a.y_before_bias) a.y_before_bias[at] = sum;
  a.y[at] = a.bias ? sum + a.bias[r] : sum;
}

template <size_t kPlanes>
HWY_INLINE void Matvec(const MatvecArgs<float>& a, float* sums) {
  const auto x = Prepare<kPlanes>(a.w.type, a.xq, a.tokens, sums);
  WithQuantBlock(a.w.type, [&](auto tag) LAB_LAMBDA {
    for (size_t r = 0; r < a.w.rows; ++r) {
      const uint8_t* const rows[1] = {a.w.row(r)};
      RowsAllTokens<typename decltype(tag)::Type>(rows, x, a.w.cols, a.tokens,
                                                  [&](size_t, size_t t, float sum)
                                                      LAB_LAMBDA { StoreSum(a, r, t, sum); });
    }
  });
}

void MatvecQ8(const MatvecArgs<float>& a, float* sums) {
  Matvec<1>(a, sums);
}
void MatvecQ16(const MatvecArgs<float>& a, float* sums) {
  Matvec<2>(a, sums);
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(MatvecQ8);
HWY_EXPORT(MatvecQ16);
void MatvecHwy(const MatvecArgs<float>& a);
void MatvecQ8Hwy(const MatvecArgs<float>& a) {
  if (!a.xq.hi) return MatvecHwy(a);
  HWY_DYNAMIC_DISPATCH(MatvecQ8)(a, Scratch(a.tokens * a.w.cols / 32));
}
void MatvecQ16Hwy(const MatvecArgs<float>& a) {
  if (!a.xq.hi) return MatvecHwy(a);
  HWY_DYNAMIC_DISPATCH(MatvecQ16)(a, Scratch(a.tokens * a.w.cols / 32));
}
}  // namespace lab
#endif
