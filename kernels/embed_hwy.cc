#include "kernels/embed.h"
#include "kernels/targets-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/embed_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
#include "kernels/dequant-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

void Embed(const EmbedArgs<float>& a) {
  const size_t n = a.table.cols;
  for (size_t t = 0; t < a.tokens; ++t)
    DequantRow(a.table.type, a.table.row(static_cast<size_t>(a.ids[t])), n, a.y + t * n);
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(Embed);
void EmbedHwy(const EmbedArgs<float>& a) {
  HWY_DYNAMIC_DISPATCH(Embed)(a);
}
}  // namespace lab
#endif
