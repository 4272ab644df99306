#include "kernels/rope.h"
#include "kernels/targets-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rope_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

void RopeHead(const float* x, float* y, const float* cos, const float* sin, size_t half) {
  ForEach(half, [&](auto d, size_t i) LAB_LAMBDA {
    const auto first = hn::LoadU(d, x + i), second = hn::LoadU(d, x + half + i);
    const auto c = hn::LoadU(d, cos + i), s = hn::LoadU(d, sin + i);
    hn::StoreU(hn::MulSub(first, c, hn::Mul(second, s)), d, y + i);
    hn::StoreU(hn::MulAdd(second, c, hn::Mul(first, s)), d, y + half + i);
  });
}

void Rope(const RopeArgs<float>& a) {
  const size_t half = a.head_dim / 2;
  for (size_t t = 0; t < a.tokens; ++t) {
    for (size_t h = 0; h < a.heads; ++h) {
      const size_t at = t * a.stride + h * a.head_dim;
      RopeHead(a.x + at, a.y + at, a.cos + t * half, a.sin + t * half, half);
    }
  }
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(Rope);
void RopeHwy(const RopeArgs<float>& a) {
  HWY_DYNAMIC_DISPATCH(Rope)(a);
}
}  // namespace lab
#endif
