#include <cmath>

#include "kernels/rms_norm.h"
#include "kernels/targets-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rms_norm_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

void RmsNorm(const RmsNormArgs<float>& a) {
  for (size_t t = 0; t < a.tokens; ++t) {
    const float* x = a.x + t * a.n;
    float squares = 0;
    DotTile<1, 1>(x, 0, x, 0, a.n, [&](size_t, size_t, float sum) LAB_LAMBDA { squares = sum; });
    const float rms = std::sqrt(squares / static_cast<float>(a.n) + a.eps);
    ForEach(a.n, [&](auto d, size_t i) LAB_LAMBDA {
      const auto normed = hn::Div(hn::LoadU(d, x + i), hn::Set(d, rms));
      hn::StoreU(hn::Mul(normed, hn::LoadU(d, a.weight + i)), d, a.y + t * a.n + i);
    });
  }
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(RmsNorm);
void RmsNormHwy(const RmsNormArgs<float>& a) {
  HWY_DYNAMIC_DISPATCH(RmsNorm)(a);
}
}  // namespace lab
#endif
