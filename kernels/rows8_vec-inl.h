// A vector of weights repacked by eight rows (kernels/rows8.h), and what its words give with
// activations: VecQ4_K, VecQ6_K.
//
// A row has two int32 lanes, whose sums stay integers until the end of the super-block. There they
// meet, exactly, and become a float once; the minimums of Q4_K are summed apart, in odd lanes.
//   Q4_K 15 * 128 * 63 * 256 = 3.1e7, Q6_K 63 * 128 * 128 * 256 = 2.6e8: both fit int32.
// Q6_K's 32 too much is taken off in integers as well: as floats, two large sums that cancel each
// other would cost more than the tolerance.

#if defined(LAB_KERNELS_ROWS8_VEC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAB_KERNELS_ROWS8_VEC_INL_H_
#undef LAB_KERNELS_ROWS8_VEC_INL_H_
#else
#define LAB_KERNELS_ROWS8_VEC_INL_H_
#endif

#include <array>
#include <cstring>

#include "kernels/int8_dot-inl.h"
#include "kernels/rows8.h"
#include "kernels/simd-inl.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {
using U8 = hn::CappedTag<uint8_t, 64>;
using I8 = hn::Repartition<int8_t, U8>;
using U16 = hn::Repartition<uint16_t, U8>;
using I16 = hn::Repartition<int16_t, U8>;
using I32 = hn::Repartition<int32_t, U8>;
using U64 = hn::Repartition<uint64_t, U8>;
using U8Vec = hn::Vec<U8>;
using I16Vec = hn::Vec<I16>;
using I32Vec = hn::Vec<I32>;
constexpr size_t kBytes = hn::MaxLanes(U8());
constexpr size_t kVecRows = kBytes / 8;
constexpr size_t kVecs = 8 / kVecRows;  // vectors of a group

/// Eight bytes for every row.
template <class D>
HWY_INLINE hn::Vec<D> Broadcast(D d, const void* eight_bytes) {
  uint64_t word;
  std::memcpy(&word, eight_bytes, sizeof word);
  return hn::BitCast(d, hn::Set(U64(), word));
}

/// How a byte or a 16-bit lane of a word gets to every product of its row: indices for two rows.
struct PickIndex {
  HWY_ALIGN uint8_t bytes[16];
};
constexpr uint8_t kNone = 0x80;  // makes a zero
/// Byte `place` as 16-bit lanes, or as 32-bit ones.
constexpr PickIndex PickByte(size_t place, size_t lane_bytes) {
  PickIndex index = {};
  for (size_t i = 0; i < 16; ++i)
    index.bytes[i] = static_cast<uint8_t>(i % lane_bytes == 0 ? i / 8 * 8 + place : kNone);
  return index;
}
constexpr PickIndex PickLane(size_t lane) {
  PickIndex index = {};
  for (size_t i = 0; i < 16; ++i)
    index.bytes[i] = static_cast<uint8_t>(i / 8 * 8 + 2 * lane + i % 2);
  return index;
}
/// Those for sub-blocks 0 .. 7.
template <class F>
constexpr std::array<PickIndex, 8> PickIndices(F&& index) {
  return {index(0), index(1), index(2), index(3), index(4), index(5), index(6), index(7)};
}
template <class V>
HWY_INLINE I16Vec Pick(V words, const PickIndex& index) {
  return hn::BitCast(
      I16(), hn::TableLookupBytesOr0(hn::BitCast(U8(), words), hn::LoadDup128(U8(), index.bytes)));
}

/// Sums of both lanes of a row: of a in its even lane, of b in its odd one.
HWY_INLINE I32Vec FoldRows(I32Vec a, I32Vec b) {
  return hn::Add(hn::OddEven(b, a), hn::Shuffle2301(hn::OddEven(a, b)));
}

/// Words of products that share a scale, summed up before they meet it. At most 127 * 128 a pair.
template <bool kQuads>
struct WordDot {
  std::conditional_t<kQuads, I32Vec, I16Vec> dot;

  HWY_INLINE void Begin(U8Vec w, hn::Vec<I8> x) {
    if constexpr (kQuads)
      dot = AddQuads(hn::Zero(I32()), w, x);
    else
      dot = PairDot(w, x);
  }
  HWY_INLINE void Add(U8Vec w, hn::Vec<I8> x) {
    if constexpr (kQuads)
      dot = AddQuads(dot, w, x);
    else
      dot = hn::Add(dot, PairDot(w, x));
  }
  HWY_INLINE I32Vec Scaled(I32Vec sum, I16Vec scale) const {
    return AddPairs(sum, hn::BitCast(I16(), dot), scale);
  }
};

// Vector v of a super-block: Words<i>(s, w) are the two words of 16 columns, half i of sub-block s;
// Add<i>(s, sum, dot, w, x) multiplies them; Fold(sum, sums) ends the super-block, with the sums of
// its activations.

struct VecQ4_K {
  // Four products of 15 * 128 in four steps: a lane of quads fits 16 bits, and its upper half,
  // the sign, meets a zero.
  static constexpr bool kQuads = LAB_VNNI;
  const Rows8Q4_K* g;
  size_t v;
  U8Vec scales;
  I16Vec mins[2];
  hn::Vec<Floats> d;  // d in even lanes, dmin in odd ones

  HWY_INLINE void Load(const Rows8Q4_K& group, size_t vec) {
    g = &group;
    v = vec;
    const auto packed = hn::LoadU(U8(), g->scales + v * kBytes);
    scales = hn::And(packed, hn::Set(U8(), 0x3f));
    const hn::Rebind<uint32_t, U64> d32;
    const auto nibbles =
        hn::PromoteTo(U64(), hn::BitCast(d32, hn::LoadU(hn::Repartition<uint8_t, decltype(d32)>(),
                                                        g->mins_high[v * kVecRows])));
    const auto both = hn::BitCast(U8(), hn::Or(nibbles, hn::ShiftLeft<28>(nibbles)));
    const auto m = hn::BitCast(U16(), hn::Or(MoveBits<0, 2>(hn::And(both, hn::Set(U8(), 15)), 0x3c),
                                             MoveBits<6, 0>(packed, 3)));
    mins[0] = hn::BitCast(I16(), hn::And(m, hn::Set(U16(), 0xff)));
    mins[1] = hn::BitCast(I16(), hn::ShiftRight<8>(m));
    d = LoadHalf(Floats(), g->factors[v * kVecRows]);
  }
  template <size_t i>
  HWY_INLINE void Words(size_t s, U8Vec* w) const {
    const auto q = hn::LoadU(U8(), g->qs[2 * s + i] + v * kBytes);
    w[0] = hn::And(q, hn::Set(U8(), 15));
    w[1] = MoveBits<4, 0>(q, 15);
  }
  template <size_t i>
  HWY_INLINE void Add(size_t s, I32Vec& sum, WordDot<kQuads>& dot, const U8Vec* w,
                      const hn::Vec<I8>* x) const {
    static constexpr auto kScale =
        PickIndices([](size_t n) constexpr { return PickByte(PlaceInWord(n), kQuads ? 4 : 2); });
    if constexpr (i == 0)
      dot.Begin(w[0], x[0]);
    else
      dot.Add(w[0], x[0]);
    dot.Add(w[1], x[1]);
    dot.dot = InOrder(dot.dot);
    if constexpr (i == 1) sum = InOrder(dot.Scaled(sum, Pick(scales, kScale[s])));
  }
  HWY_INLINE I32Vec Fold(I32Vec sum, const int16_t* sums) const {
    auto min = hn::Zero(I32());
    Unroll<2>([&](auto i)
                  LAB_LAMBDA { min = AddPairs(min, mins[i], Broadcast(I16(), sums + 4 * i)); });
    return FoldRows(sum, min);
  }
};

struct VecQ6_K {
  static constexpr bool kQuads = false;
  const Rows8Q6_K* g;
  size_t v;
  I16Vec scales[4];
  hn::Vec<Floats> d;  // zero in odd lanes

  HWY_INLINE void Load(const Rows8Q6_K& group, size_t vec) {
    g = &group;
    v = vec;
    Unroll<2>([&](auto i) LAB_LAMBDA {
      const auto both = hn::BitCast(I16(), hn::LoadU(I8(), g->scales[i] + v * kBytes));
      scales[2 * i] = hn::ShiftRight<8>(hn::ShiftLeft<8>(both));
      scales[2 * i + 1] = hn::ShiftRight<8>(both);
    });
    const hn::Rebind<float, U64> half;
    const auto floats = LoadHalf(half, g->d + v * kVecRows);
    d = hn::BitCast(Floats(),
                    hn::PromoteTo(U64(), hn::BitCast(hn::Rebind<uint32_t, U64>(), floats)));
  }
  template <size_t i>
  HWY_INLINE void Words(size_t s, U8Vec* w) const {
    const auto high = hn::LoadU(U8(), g->sub_blocks[s].qh + v * kBytes);
    const auto q = hn::LoadU(U8(), g->sub_blocks[s].ql[i] + v * kBytes);
    w[0] = hn::Or(hn::And(q, hn::Set(U8(), 15)), MoveBits<4 * i, 4>(high, 0x30));
    w[1] = hn::Or(MoveBits<4, 0>(q, 15), MoveBits<4 * i + 2, 4>(high, 0x30));
  }
  template <size_t i>
  HWY_INLINE void Add(size_t s, I32Vec& sum, WordDot<kQuads>& dot, const U8Vec* w,
                      const hn::Vec<I8>* x) const {
    static constexpr auto kScale =
        PickIndices([](size_t n) constexpr { return PickLane((2 * n + i) % 4); });
    dot.Begin(w[0], x[0]);
    dot.Add(w[1], x[1]);
    sum = InOrder(dot.Scaled(sum, Pick(scales[s / 2], kScale[s])));
  }
  HWY_INLINE I32Vec Fold(I32Vec sum, const int16_t* sums) const {
    auto offset = hn::Zero(I32());
    Unroll<4>([&](auto i) LAB_LAMBDA {
      offset = AddPairs(offset, scales[i], Broadcast(I16(), sums + 4 * i));
    });
    sum = hn::Sub(sum, hn::ShiftLeft<5>(offset));
    return FoldRows(sum, sum);
  }
};

template <class Group>
using VecOf = std::conditional_t<std::is_same_v<Group, Rows8Q4_K>, VecQ4_K, VecQ6_K>;

/// Columns whose activations are summed: those that share a minimum, or an offset times a scale.
template <class Group>
constexpr size_t kSumCols = std::is_same_v<Group, Rows8Q4_K> ? 32 : 16;

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR
#endif
