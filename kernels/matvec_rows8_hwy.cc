// Ops matvec and down_proj under contracts q8 and q16 for weights repacked by eight rows.
#include "kernels/matvec.h"
#include "kernels/scratch-inl.h"
#include "kernels/targets-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matvec_rows8_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
#include "kernels/rows8-inl.h"

namespace lab {
void MatvecQ8Hwy(const MatvecArgs<float>& a);
void MatvecQ16Hwy(const MatvecArgs<float>& a);
}  // namespace lab

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

#if HWY_TARGET == HWY_SCALAR
// Without vectors nothing is gained from eight rows.
void MatvecR8Q8(const MatvecArgs<float>& a, int16_t*) {
  MatvecQ8Hwy(a);
}
void MatvecR8Q16(const MatvecArgs<float>& a, int16_t*) {
  MatvecQ16Hwy(a);
}
#else
template <class Group, size_t kPlanes>
HWY_INLINE void Matvec(const MatvecArgs<float>& a, int16_t* scratch) {
  const Rows8Acts<kPlanes, kSumCols<Group> > x(a.xq, a.tokens, scratch);
  GroupsTimesTokens<Group>(
      a.w, x, a.tokens, [&](size_t r, size_t t, const float(&sums)[8]) LAB_LAMBDA {
        const hn::CappedTag<float, 8> d;
        for (size_t i = 0; i < 8; i += hn::Lanes(d)) {
          const size_t at = t * a.y_stride + r + i;
          const auto sum = hn::LoadU(d, sums + i);
          if (a.y_before_bias) hn::StoreU(sum, d, a.y_before_bias + at);
          hn::StoreU(a.bias ? hn::Add(sum, hn::LoadU(d, a.bias + r + i)) : sum, d, a.y + at);
        }
      });
}

template <size_t kPlanes>
HWY_INLINE void Matvec(const MatvecArgs<float>& a, int16_t* scratch) {
  if (a.w.type == BlockType::Q4_K) return Matvec<Rows8Q4_K, kPlanes>(a, scratch);
  Matvec<Rows8Q6_K, kPlanes>(a, scratch);
}

void MatvecR8Q8(const MatvecArgs<float>& a, int16_t* scratch) {
  Matvec<1>(a, scratch);
}
void MatvecR8Q16(const MatvecArgs<float>& a, int16_t* scratch) {
  Matvec<2>(a, scratch);
}
#endif

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(MatvecR8Q8);
HWY_EXPORT(MatvecR8Q16);

namespace {

// Whole groups by `rows8`, the rest, or all that is not repacked, by `plain`.
template <class Rows8>
void Split(const MatvecArgs<float>& a, Rows8&& rows8, void (*plain)(const MatvecArgs<float>&)) {
  if (!a.xq.hi || !a.w.rows8) return plain(a);
  const size_t whole = a.w.rows / 8 * 8;
  rows8(a, Scratch<int16_t>(a.tokens * (a.xq.lo ? 2 : 1) * a.xq.n / 16));
  if (whole < a.w.rows) plain(a.Slice(whole, a.w.rows));
}

}  // namespace

void MatvecRows8Q8Hwy(const MatvecArgs<float>& a) {
  Split(a, HWY_DYNAMIC_DISPATCH(MatvecR8Q8), MatvecQ8Hwy);
}
void MatvecRows8Q16Hwy(const MatvecArgs<float>& a) {
  Split(a, HWY_DYNAMIC_DISPATCH(MatvecR8Q16), MatvecQ16Hwy);
}
}  // namespace lab
#endif
