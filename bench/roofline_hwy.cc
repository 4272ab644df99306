#include "bench/roofline.h"
#include "kernels/targets-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/roofline_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
// Per target, hence behind it.
#include "hwy/highway.h"
#include "kernels/int8_dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// Sums in flight: latency 4 times 2 units, and some to spare.
constexpr size_t kSums = 12;

void ReadAll(const uint8_t* bytes, size_t n, size_t streams, uint64_t* sink) {
  const hn::ScalableTag<uint64_t> d;
  const size_t step = hn::Lanes(d) * sizeof(uint64_t);
  auto a = hn::Zero(d), b = a, c = a, e = a;
  for (size_t i = 0; i < n / streams; i += 4 * step)
    for (size_t s = 0; s < streams; ++s) {
      const auto* p = reinterpret_cast<const uint64_t*>(bytes + s * (n / streams) + i);
      a = hn::Xor(a, hn::Load(d, p));
      b = hn::Xor(b, hn::Load(d, p + hn::Lanes(d)));
      c = hn::Xor(c, hn::Load(d, p + 2 * hn::Lanes(d)));
      e = hn::Xor(e, hn::Load(d, p + 3 * hn::Lanes(d)));
    }
  *sink = hn::GetLane(hn::Xor(hn::Xor(a, b), hn::Xor(c, e)));
}

double SpinF32(size_t rounds, float* sink) {
  const hn::ScalableTag<float> d;
  const auto factor = hn::Set(d, *sink), term = hn::Set(d, 1.0f);
  decltype(hn::Zero(d)) sums[kSums];
  for (auto& sum : sums) sum = hn::Zero(d);
  for (size_t r = 0; r < rounds; ++r)
    for (auto& sum : sums) sum = hn::MulAdd(sum, factor, term);
  for (const auto& sum : sums) *sink += hn::GetLane(sum);
  return 2.0 * static_cast<double>(rounds * kSums * hn::Lanes(d));
}

#if HWY_TARGET == HWY_SCALAR
double SpinInt8(size_t rounds, int32_t* sink) {
  volatile int8_t u = 3, x = 5;
  for (size_t r = 0; r < rounds; ++r) *sink += u * x;
  return 2.0 * static_cast<double>(rounds);
}
#else
// Operands change from step to step, so that no product is formed before the loop.
double SpinInt8(size_t rounds, int32_t* sink) {
  const hn::ScalableTag<uint8_t> du8;
  const hn::ScalableTag<int8_t> di8;
  const hn::ScalableTag<int32_t> d32;
  const size_t lanes = hn::Lanes(du8);
  HWY_ALIGN uint8_t u[4 * HWY_MAX_BYTES];
  HWY_ALIGN int8_t x[kSums * HWY_MAX_BYTES];
  for (size_t i = 0; i < sizeof u; ++i) u[i] = static_cast<uint8_t>((*sink + i) % 100);
  for (size_t i = 0; i < sizeof x; ++i) x[i] = static_cast<int8_t>((*sink + i) % 50);
  decltype(hn::Zero(d32)) sums[kSums];
  for (auto& sum : sums) sum = hn::Zero(d32);
  for (size_t r = 0; r < rounds; ++r) {
    const auto left = hn::Load(du8, u + r % 4 * lanes);
    for (size_t k = 0; k < kSums; ++k)
      sums[k] = AddQuads(sums[k], left, hn::Load(di8, x + k * lanes));
  }
  for (const auto& sum : sums) *sink ^= hn::GetLane(sum);
  return 2.0 * static_cast<double>(rounds * kSums * lanes);
}
#endif

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(ReadAll);
HWY_EXPORT(SpinF32);
HWY_EXPORT(SpinInt8);
void ReadAll(const uint8_t* bytes, size_t n, size_t streams, uint64_t* sink) {
  HWY_DYNAMIC_DISPATCH(ReadAll)(bytes, n, streams, sink);
}
double SpinF32(size_t rounds, float* sink) {
  return HWY_DYNAMIC_DISPATCH(SpinF32)(rounds, sink);
}
double SpinInt8(size_t rounds, int32_t* sink) {
  return HWY_DYNAMIC_DISPATCH(SpinInt8)(rounds, sink);
}
}  // namespace lab
#endif
