// Ops q4k_dequant and q6k_dequant.
#include "kernels/dequant.h"
#include "kernels/targets-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dequant_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
#include "kernels/dequant-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

void Dequant(const DequantArgs<float>& a) {
  for (size_t r = 0; r < a.w.rows; ++r)
    DequantRow(a.w.type, a.w.row(r), a.w.cols, a.y + r * a.w.cols);
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(Dequant);
void Q4kDequantHwy(const DequantArgs<float>& a) {
  HWY_DYNAMIC_DISPATCH(Dequant)(a);
}
void Q6kDequantHwy(const DequantArgs<float>& a) {
  HWY_DYNAMIC_DISPATCH(Dequant)(a);
}
}  // namespace lab
#endif
