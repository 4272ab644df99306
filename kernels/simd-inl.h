// What the Highway rows share: element-wise loops, half floats, and sums of products whose order of
// additions is the same for every vector length.

#if defined(LAB_KERNELS_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAB_KERNELS_SIMD_INL_H_
#undef LAB_KERNELS_SIMD_INL_H_
#else
#define LAB_KERNELS_SIMD_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "hwy/highway.h"

/// For lambdas: they do not inherit the target of the function around them, and one that is not
/// inlined would pass its vectors through memory.
#undef LAB_LAMBDA
#define LAB_LAMBDA HWY_ATTR __attribute__((always_inline))

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, 16>;
using FloatVec = hn::Vec<Floats>;
constexpr size_t kLanes = hn::MaxLanes(Floats());

template <size_t kValue>
using Index = std::integral_constant<size_t, kValue>;

#if HWY_TARGET == HWY_SCALAR
// 32 partial sums are 32 vectors here; unrolled, they make the compiler take minutes.
template <size_t kCount, class F>
HWY_INLINE void Unroll(F&& f) {
  for (size_t i = 0; i < kCount; ++i) f(i);
}
#else
template <class F, size_t... kIndices>
HWY_INLINE void UnrollImpl(F& f, std::index_sequence<kIndices...>) {
  (f(Index<kIndices>()), ...);
}
/// f(Index<0>()) .. f(Index<kCount - 1>()), so that arrays of vectors are indexed by constants and
/// stay in registers.
template <size_t kCount, class F>
HWY_INLINE void Unroll(F&& f) {
  UnrollImpl(f, std::make_index_sequence<kCount>());
}
#endif

/// step(tag, i) for every vector of [0, n), then for every value left over with a tag of one lane:
/// the same operations, so it does not matter where a slice begins.
template <class Step>
HWY_INLINE void ForEach(size_t n, Step&& step) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) step(Floats(), i);
  for (; i < n; ++i) step(hn::CappedTag<float, 1>(), i);
}

/// p, with the compiler none the wiser. g++ would keep everything that was broadcast for one vector
/// until the next needs it, on the stack where registers are few: prefill on AVX2 took 16 to 19 %
/// longer.
template <class T>
HWY_INLINE T* Unrelated(T* p) {
  asm volatile("" : "+r"(p));
  return p;
}

/// v, with the compiler none the wiser, so that additions stay in the order in which they are
/// written. g++ makes trees of sums of integers, which keep more values alive than the 16 registers
/// of SSE and AVX2 hold: a tile of a prefill took 9 to 13 % longer.
template <class V>
HWY_INLINE V InOrder(V v) {
#if HWY_ARCH_X86 && HWY_TARGET >= HWY_AVX2
  asm("" : "+x"(v.raw));
#endif
  return v;
}

/// Asks for a line that will be read soon, but not next. Into L2: on Zen 4 the first level waits
/// for few lines at once, and attention ran at half the speed with prefetches into it.
HWY_INLINE void PrefetchL2(const void* from) {
  __builtin_prefetch(from, /*rw=*/0, /*locality=*/2);
}

/// Half floats as floats. Highway's own conversion where the CPU has one; its emulation (1.0.3)
/// turns infinity into 65536.
template <class D>
HWY_INLINE hn::Vec<D> LoadHalf(D d, const uint16_t* from) {
  const hn::Rebind<uint16_t, D> du16;
#if HWY_ARCH_ARM_A64 || (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2)
  const hn::Rebind<hwy::float16_t, D> dh;
  return hn::PromoteTo(d, hn::BitCast(dh, hn::LoadU(du16, from)));
#else
  const hn::Rebind<uint32_t, D> du32;
  const hn::Rebind<int32_t, D> di32;
  const auto bits = hn::PromoteTo(du32, hn::LoadU(du16, from));
  const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(du32, 0x7fff)));
  const auto special = hn::Gt(hn::BitCast(di32, magnitude), hn::Set(di32, (0x7c00 << 13) - 1));
  // The exponents' biases differ by 112; the product is exact, of subnormal halves too.
  const auto scaled = hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p112f));
  const auto exponent = hn::IfThenElseZero(special, hn::BitCast(di32, hn::Set(du32, 0x7f800000)));
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du32, 0x8000)));
  return hn::BitCast(d,
                     hn::Or(hn::Or(hn::BitCast(du32, scaled), sign), hn::BitCast(du32, exponent)));
#endif
}

inline float HalfValue(const uint16_t& half) {
  return hn::GetLane(LoadHalf(hn::CappedTag<float, 1>(), &half));
}

// Sums of products: kSums partial sums, one for each residue of the column modulo kSums, each added
// up in the order of columns and folded in halves at the end. The result therefore depends on the
// number of columns alone: not on the number of rows or tokens at hand, and, given FMA, not on the
// length of vectors.
constexpr size_t kSums = 32;
constexpr size_t kSumVecs = kSums / kLanes;

struct Sums {
  FloatVec v[kSumVecs];
};

HWY_INLINE void Clear(Sums& sums) {
  Unroll<kSumVecs>([&](auto i) LAB_LAMBDA { sums.v[i] = hn::Zero(Floats()); });
}

#if HWY_TARGET == HWY_SCALAR
template <class D, class V>
HWY_INLINE float FoldLanes(D, V v) {
  return hn::GetLane(v);
}
#else
template <class D, class V>
HWY_INLINE hn::Vec<hn::FixedTag<float, 4> > FoldToFour(D d, V v) {
  if constexpr (hn::MaxLanes(d) > 4) {
    const hn::Half<D> half;
    return FoldToFour(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  } else {
    return v;
  }
}

template <class D, class V>
HWY_INLINE float FoldLanes(D d, V v) {
  auto four = FoldToFour(d, v);
  four = hn::Add(four, hn::Shuffle1032(four));
  return hn::GetLane(hn::Add(four, hn::Shuffle2301(four)));
}
#endif

template <size_t kVecs = kSumVecs>
HWY_INLINE float Total(Sums& sums) {
  if constexpr (kVecs > 1) {
    Unroll<kVecs / 2>([&](auto i)
                          LAB_LAMBDA { sums.v[i] = hn::Add(sums.v[i], sums.v[i + kVecs / 2]); });
    return Total<kVecs / 2>(sums);
  } else {
    return FoldLanes(Floats(), sums.v[0]);
  }
}

/// Adds the products of n columns, a multiple of kSums, of every row with every token.
template <size_t kRows, size_t kTokens>
HWY_INLINE void AddProducts(const float* const (&w)[kRows], const float* const (&x)[kTokens],
                            size_t n, Sums (&sums)[kRows][kTokens]) {
  const Floats d;
  for (size_t c = 0; c < n; c += kSums) {
    Unroll<kSumVecs>([&](auto i) LAB_LAMBDA {
      FloatVec row[kRows];
      Unroll<kRows>([&](auto r) LAB_LAMBDA { row[r] = hn::LoadU(d, w[r] + c + i * kLanes); });
      Unroll<kTokens>([&](auto t) LAB_LAMBDA {
        const FloatVec token = hn::LoadU(d, x[t] + c + i * kLanes);
        Unroll<kRows>([&](auto r) LAB_LAMBDA {
          sums[r][t].v[i] = hn::MulAdd(row[r], token, sums[r][t].v[i]);
        });
      });
    });
  }
}

/// The last n < kSums values, with zeros behind them.
struct PaddedTail {
  float values[kSums] = {};
  PaddedTail() = default;
  PaddedTail(const float* from, size_t n) { std::memcpy(values, from, n * sizeof(float)); }
};

/// store(r, t, sum) for rows r of kRows and tokens t of kTokens.
template <size_t kRows, size_t kTokens, class Store>
HWY_INLINE void DotTile(const float* w, size_t w_stride, const float* x, size_t x_stride, size_t n,
                        Store&& store) {
  const float *rows[kRows], *tokens[kTokens];
  for (size_t r = 0; r < kRows; ++r) rows[r] = w + r * w_stride;
  for (size_t t = 0; t < kTokens; ++t) tokens[t] = x + t * x_stride;
  Sums sums[kRows][kTokens];
  Unroll<kRows>([&](auto r)
                    LAB_LAMBDA { Unroll<kTokens>([&](auto t) LAB_LAMBDA { Clear(sums[r][t]); }); });
  const size_t whole = n / kSums * kSums;
  AddProducts(rows, tokens, whole, sums);
  if (whole < n) {
    PaddedTail row_tails[kRows], token_tails[kTokens];
    for (size_t r = 0; r < kRows; ++r) {
      row_tails[r] = PaddedTail(rows[r] + whole, n - whole);
      rows[r] = row_tails[r].values;
    }
    for (size_t t = 0; t < kTokens; ++t) {
      token_tails[t] = PaddedTail(tokens[t] + whole, n - whole);
      tokens[t] = token_tails[t].values;
    }
    AddProducts(rows, tokens, kSums, sums);
  }
  Unroll<kRows>([&](auto r) LAB_LAMBDA {
    Unroll<kTokens>([&](auto t) LAB_LAMBDA { store(r, t, Total(sums[r][t])); });
  });
}

// As many sums as the registers hold beside the loaded values: 32 registers with AVX-512 and on
// NEON, else 16.
constexpr size_t kTileRows = kLanes == 16 ? 3 : 1;
constexpr size_t kTileTokens = kLanes == 16 ? 4 : kLanes == 8 || HWY_ARCH_ARM_A64 ? 3 : 1;

/// store(r, t, sum of the n products of row r of w and row t of x) for all rows and tokens.
template <class Store>
HWY_INLINE void DotAll(const float* w, size_t w_stride, size_t rows, const float* x,
                       size_t x_stride, size_t tokens, size_t n, Store&& store) {
  const auto all_rows = [&](auto tile_tokens, size_t t0) LAB_LAMBDA {
    const auto tile = [&](auto tile_rows, size_t r0) LAB_LAMBDA {
      DotTile<tile_rows, tile_tokens>(w + r0 * w_stride, w_stride, x + t0 * x_stride, x_stride, n,
                                      [&](size_t r, size_t t, float sum)
                                          LAB_LAMBDA { store(r0 + r, t0 + t, sum); });
    };
    size_t r = 0;
    for (; r + kTileRows <= rows; r += kTileRows) tile(Index<kTileRows>(), r);
    for (; r < rows; ++r) tile(Index<1>(), r);
  };
  size_t t = 0;
  for (; t + kTileTokens <= tokens; t += kTileTokens) all_rows(Index<kTileTokens>(), t);
  for (; t < tokens; ++t) all_rows(Index<1>(), t);
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
