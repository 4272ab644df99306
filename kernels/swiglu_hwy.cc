#include "kernels/swiglu.h"
#include "kernels/targets-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/swiglu_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

void Swiglu(const SwigluArgs<float>& a) {
  ForEach(a.n, [&](auto d, size_t i) LAB_LAMBDA {
    hn::StoreU(hn::Mul(hn::LoadU(d, a.silu + i), hn::LoadU(d, a.up + i)), d, a.y + i);
  });
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(Swiglu);
void SwigluHwy(const SwigluArgs<float>& a) {
  HWY_DYNAMIC_DISPATCH(Swiglu)(a);
}
}  // namespace lab
#endif
