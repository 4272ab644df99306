#include <cmath>
#include <limits>

#include "kernels/quantize.h"
#include "kernels/targets-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quantize_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;  // a group of 16, which has its own sum, is a few whole vectors
using DI = hn::Rebind<int32_t, D>;
using D8 = hn::Rebind<int8_t, D>;
constexpr size_t kLanes = hn::MaxLanes(D());

// The largest magnitude as bits. Those of NaN are above those of infinity, and they above all
// finite ones: one integer maximum finds the magnitude and whether all are finite.
uint32_t LargestBits(const float* x, size_t n) {
  const DI di;
  auto largest = hn::Zero(di);
  for (size_t i = 0; i < n; i += kLanes)
    largest = hn::Max(largest, hn::BitCast(di, hn::Abs(hn::LoadU(D(), x + i))));
  return static_cast<uint32_t>(hn::GetLane(hn::MaxOfLanes(di, largest)));
}

// 16 values to integers; returns their sum.
template <bool kTwoPlanes>
HWY_INLINE int32_t QuantizeGroup(const float* x, float r, int8_t* hi, int8_t* lo) {
  const DI di;
  auto sum = hn::Zero(di);
  for (size_t i = 0; i < 16; i += kLanes) {
    const auto q = hn::NearestInt(hn::Mul(hn::LoadU(D(), x + i), hn::Set(D(), r)));
    sum = hn::Add(sum, q);
    if constexpr (kTwoPlanes) {
      const auto high = hn::ShiftRight<8>(hn::Add(q, hn::Set(di, 128)));  // so lo >= -128
      hn::StoreU(hn::DemoteTo(D8(), high), D8(), hi + i);
      hn::StoreU(hn::DemoteTo(D8(), hn::Sub(q, hn::ShiftLeft<8>(high))), D8(), lo + i);
    } else {
      hn::StoreU(hn::DemoteTo(D8(), q), D8(), hi + i);
    }
  }
  return hn::GetLane(hn::SumOfLanes(di, sum));
}

template <bool kTwoPlanes>
void QuantizeBlock(const float* x, size_t n, int8_t* hi, int8_t* lo, float* scale, int32_t* sums) {
  constexpr float kLargest = kTwoPlanes ? 32512 : 127;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const uint32_t bits = LargestBits(x, n);
  const float amax = hn::GetLane(
      hn::BitCast(hn::CappedTag<float, 1>(), hn::Set(hn::CappedTag<uint32_t, 1>(), bits)));
  const bool finite = amax < kInfinity;
  const float r = kLargest / amax;
  if (finite && r < kInfinity) {
    *scale = amax / kLargest;
    for (size_t i = 0; i < n; i += 16)
      sums[i / 16] = QuantizeGroup<kTwoPlanes>(x + i, r, hi + i, kTwoPlanes ? lo + i : nullptr);
    return;
  }
  *scale = finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  for (size_t i = 0; i < n; ++i) hi[i] = 0;
  for (size_t i = 0; kTwoPlanes && i < n; ++i) lo[i] = 0;
  for (size_t i = 0; i < n / 16; ++i) sums[i] = 0;
}

template <bool kTwoPlanes>
void Quantize(const QuantizeArgs<float>& a) {
  for (size_t at = 0; at < a.tokens * a.n; at += a.block)
    QuantizeBlock<kTwoPlanes>(a.x + at, a.block, a.hi + at, kTwoPlanes ? a.lo + at : nullptr,
                              a.scale + at / a.block, a.sums + at / 16);
}

void QuantizeQ8(const QuantizeArgs<float>& a) {
  Quantize<false>(a);
}
void QuantizeQ16(const QuantizeArgs<float>& a) {
  Quantize<true>(a);
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(QuantizeQ8);
HWY_EXPORT(QuantizeQ16);
void QuantizeQ8Hwy(const QuantizeArgs<float>& a) {
  HWY_DYNAMIC_DISPATCH(QuantizeQ8)(a);
}
void QuantizeQ16Hwy(const QuantizeArgs<float>& a) {
  HWY_DYNAMIC_DISPATCH(QuantizeQ16)(a);
}
}  // namespace lab
#endif
