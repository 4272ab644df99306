// Sums of products of neighbouring 8-bit integers, the heart of the rows of contracts q8 and q16,
// and MoveBits to unpack one of the factors. Highway 1.0.3 has no such sums; 1.0.6 brought
// SumOfMulQuadAccumulate.
//
// Precondition of all sums: the unsigned operand is at most 127. x86's maddubs adds two products in
// saturating int16: 2 * 127 * 128 = 32512 fits, 2 * 255 * 127 does not.

#if defined(LAB_KERNELS_INT8_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAB_KERNELS_INT8_DOT_INL_H_
#undef LAB_KERNELS_INT8_DOT_INL_H_
#else
#define LAB_KERNELS_INT8_DOT_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

#undef LAB_HWY_HAS_QUAD
#define LAB_HWY_HAS_QUAD ((HWY_MAJOR * 100 + HWY_MINOR) * 100 + HWY_PATCH >= 10006)
#undef LAB_MADDUBS
#define LAB_MADDUBS (HWY_ARCH_X86 && HWY_TARGET <= HWY_SSSE3)
#undef LAB_VNNI
#define LAB_VNNI (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL)

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

template <class V>
using Int16Of = hn::Vec<hn::Repartition<int16_t, hn::DFromV<V>>>;
template <class V>
using Int32Of = hn::Vec<hn::Repartition<int32_t, hn::DFromV<V>>>;

/// Bits kFrom and up of every unsigned byte, moved to kTo and up, under a mask.
template <int kFrom, int kTo, class VU8>
HWY_INLINE VU8 MoveBits(VU8 v, uint8_t mask) {
  const hn::DFromV<VU8> d8;
  const hn::Repartition<uint16_t, decltype(d8)> d16;
  auto moved = hn::BitCast(d16, v);  // the mask drops what crosses into the neighbour
  if constexpr (kFrom < kTo) moved = hn::ShiftLeft<kTo - kFrom>(moved);
  if constexpr (kFrom > kTo) moved = hn::ShiftRight<kFrom - kTo>(moved);
  return hn::And(hn::BitCast(d8, moved), hn::Set(d8, mask));
}

// The portable forms: even and odd lanes apart, sign-extended in place.

/// Lane i: u[2i] x[2i] + u[2i+1] x[2i+1].
template <class VU8, class VI8>
HWY_INLINE Int16Of<VI8> PairDotPortable(VU8 u, VI8 x) {
  const hn::Repartition<int16_t, hn::DFromV<VI8>> d16;
  const hn::Repartition<uint16_t, hn::DFromV<VI8>> du16;
  const auto u16 = hn::BitCast(du16, u);
  const auto x16 = hn::BitCast(d16, x);
  const auto u_even = hn::BitCast(d16, hn::And(u16, hn::Set(du16, 0xff)));
  const auto u_odd = hn::BitCast(d16, hn::ShiftRight<8>(u16));
  const auto x_even = hn::ShiftRight<8>(hn::ShiftLeft<8>(x16));
  const auto x_odd = hn::ShiftRight<8>(x16);
  return hn::Add(hn::Mul(u_even, x_even), hn::Mul(u_odd, x_odd));
}

/// Lane i: sum + a[2i] b[2i] + a[2i+1] b[2i+1].
template <class VI32, class VI16>
HWY_INLINE VI32 AddPairsPortable(VI32 sum, VI16 a, VI16 b) {
  const hn::DFromV<VI32> d32;
  const auto a32 = hn::BitCast(d32, a), b32 = hn::BitCast(d32, b);
  const auto even = hn::Mul(hn::ShiftRight<16>(hn::ShiftLeft<16>(a32)),
                            hn::ShiftRight<16>(hn::ShiftLeft<16>(b32)));
  return hn::Add(sum, hn::Add(even, hn::Mul(hn::ShiftRight<16>(a32), hn::ShiftRight<16>(b32))));
}

/// Lane i: u[2i] x[2i] + u[2i+1] x[2i+1].
template <class VU8, class VI8>
HWY_INLINE Int16Of<VI8> PairDot(VU8 u, VI8 x) {
#if LAB_MADDUBS
#if HWY_TARGET <= HWY_AVX3
  if constexpr (sizeof(u.raw) == 64) return {_mm512_maddubs_epi16(u.raw, x.raw)};
#endif
#if HWY_TARGET <= HWY_AVX2
  if constexpr (sizeof(u.raw) == 32 && sizeof(VU8) == 32)
    return {_mm256_maddubs_epi16(u.raw, x.raw)};
#endif
  if constexpr (sizeof(u.raw) == 16) return Int16Of<VI8>{_mm_maddubs_epi16(u.raw, x.raw)};
#elif HWY_TARGET == HWY_NEON && HWY_ARCH_ARM_A64
  if constexpr (sizeof(u.raw) == 16) {
    const int8x16_t s = vreinterpretq_s8_u8(u.raw);
    return Int16Of<VI8>(
        vpaddq_s16(vmull_s8(vget_low_s8(s), vget_low_s8(x.raw)), vmull_high_s8(s, x.raw)));
  }
#else
  return PairDotPortable(u, x);
#endif
}

/// Lane i: sum + a[2i] b[2i] + a[2i+1] b[2i+1].
template <class VI32, class VI16>
HWY_INLINE VI32 AddPairs(VI32 sum, VI16 a, VI16 b) {
#if LAB_VNNI && !LAB_HWY_HAS_QUAD
  // As text: 1.0.3 compiles this target for AVX-VNNI instead of AVX512-VNNI, so the compiler would
  // refuse the intrinsic or, worse, choose an encoding that AVX-512 machines (Zen 4) do not know.
  asm("%{evex%} vpdpwssd %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "vm"(b.raw));
  return sum;
#elif HWY_ARCH_X86
  auto unused = sum;  // x86 adds all to the first sum
  return hn::ReorderWidenMulAccumulate(hn::DFromV<VI32>(), a, b, sum, unused);
#elif HWY_TARGET == HWY_NEON && HWY_ARCH_ARM_A64
  return hn::Add(sum, VI32(vpaddq_s32(vmull_s16(vget_low_s16(a.raw), vget_low_s16(b.raw)),
                                      vmull_high_s16(a.raw, b.raw))));
#else
  return AddPairsPortable(sum, a, b);
#endif
}

/// Lane i: sum + u[4i] x[4i] + .. + u[4i+3] x[4i+3].
template <class VI32, class VU8, class VI8>
HWY_INLINE VI32 AddQuads(VI32 sum, VU8 u, VI8 x) {
#if LAB_HWY_HAS_QUAD && (LAB_VNNI || !HWY_ARCH_X86)
  return hn::SumOfMulQuadAccumulate(hn::DFromV<VI32>(), u, x, sum);
#elif LAB_VNNI
  asm("%{evex%} vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(u.raw), "vm"(x.raw));
  return sum;
#else
  const hn::Repartition<int16_t, hn::DFromV<VI8>> d16;
  return AddPairs(sum, PairDot(u, x), hn::Set(d16, 1));
#endif
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR
#endif
