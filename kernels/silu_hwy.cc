#include "kernels/silu.h"
#include "kernels/targets-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/silu_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
// Per target, hence behind it.
#include "hwy/contrib/math/math-inl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

// x / (1 + exp(-x)) from e = exp(-|x|), because Highway's Exp is wrong above +104: silu(-200) would
// come out as -200. Below -104 it gives 0; the clamp keeps -inf out of it, which it does not
// promise to take. A NaN comes back through x, and -inf as NaN through -inf * 0.
template <class D>
HWY_INLINE hn::Vec<D> SiluOf(D d, hn::Vec<D> x) {
  const auto one = hn::Set(d, 1.0f);
  const auto e = hn::Exp(d, hn::Max(hn::Neg(hn::Abs(x)), hn::Set(d, -120.0f)));
  const auto numerator = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Mul(x, e), x);
  return hn::Div(numerator, hn::Add(one, e));
}

void Silu(const SiluArgs<float>& a) {
  ForEach(a.n, [&](auto d, size_t i)
                   LAB_LAMBDA { hn::StoreU(SiluOf(d, hn::LoadU(d, a.x + i)), d, a.y + i); });
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(Silu);
void SiluHwy(const SiluArgs<float>& a) {
  HWY_DYNAMIC_DISPATCH(Silu)(a);
}
}  // namespace lab
#endif
