#include "kernels/residual_add.h"
#include "kernels/targets-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/residual_add_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

void ResidualAdd(const ResidualAddArgs<float>& a) {
  ForEach(a.n, [&](auto d, size_t i) LAB_LAMBDA {
    hn::StoreU(hn::Add(hn::LoadU(d, a.a + i), hn::LoadU(d, a.b + i)), d, a.y + i);
  });
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(ResidualAdd);
void ResidualAddHwy(const ResidualAddArgs<float>& a) {
  HWY_DYNAMIC_DISPATCH(ResidualAdd)(a);
}
}  // namespace lab
#endif
