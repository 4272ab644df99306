// Weights repacked by eight rows (kernels/rows8.h) times activations in integers.
//
// A row has two int32 lanes, whose sums stay integers until the end of the super-block. There they
// meet, exactly, and become a float once; the minimums of Q4_K are summed apart, in odd lanes.
//   Q4_K 15 * 128 * 63 * 256 = 3.1e7, Q6_K 63 * 128 * 128 * 256 = 2.6e8: both fit int32.
// Q6_K's 32 too much is taken off in integers as well: as floats, two large sums that cancel each
// other would cost more than the tolerance. The planes meet as floats.
// A token's order of additions depends on the number of columns alone, whatever the tile it is in.

#if defined(LAB_KERNELS_ROWS8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAB_KERNELS_ROWS8_INL_H_
#undef LAB_KERNELS_ROWS8_INL_H_
#else
#define LAB_KERNELS_ROWS8_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/int8_dot-inl.h"
#include "kernels/quantize.h"
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

/// Bits kFrom and up of every byte, moved to kTo and up, under a mask.
template <int kFrom, int kTo>
HWY_INLINE U8Vec MoveBits(U8Vec v, uint8_t mask) {
  auto moved = hn::BitCast(U16(), v);  // the mask drops what crosses into the neighbour
  if constexpr (kFrom < kTo) moved = hn::ShiftLeft<kTo - kFrom>(moved);
  if constexpr (kFrom > kTo) moved = hn::ShiftRight<kFrom - kTo>(moved);
  return hn::And(hn::BitCast(U8(), moved), hn::Set(U8(), mask));
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
    if constexpr (i == 1) sum = dot.Scaled(sum, Pick(scales, kScale[s]));
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

/// Activations as groups of rows read them.
template <size_t kPlanes_, size_t kSumCols_>
struct Rows8Acts {
  static constexpr size_t kPlanes = kPlanes_;
  const int8_t* planes[2];
  const float* scale;
  size_t n;
  int16_t* sums;  // [tokens, planes, n / kSumCols_], q summed up = 256 * plane 0 + plane 1

  Rows8Acts(const QuantizedView& xq, size_t tokens, int16_t* scratch)
      : planes{xq.hi, xq.lo}, scale(xq.scale), n(xq.n), sums(scratch) {
    for (size_t t = 0; t < tokens; ++t) SplitSums(xq.sums + t * (n / 16), Sums(t, 0, 0));
  }
  int16_t* Sums(size_t t, size_t plane, size_t block) const {
    return sums + ((t * kPlanes + plane) * n + block * 256) / kSumCols_;
  }

 private:
  void SplitSums(const int32_t* of_16, int16_t* out) const {
    const size_t count = n / kSumCols_;
    for (size_t s = 0; s < count; ++s) {
      const int32_t sum = kSumCols_ == 16 ? of_16[s] : of_16[2 * s] + of_16[2 * s + 1];
      const int32_t high = kPlanes == 1 ? sum : (sum + 128) >> 8;
      out[s] = static_cast<int16_t>(high);
      if (kPlanes == 2) out[count + s] = static_cast<int16_t>(sum - 256 * high);
    }
  }
};

/// Bytes [first, end) of every super-block of a group that will be needed soon.
template <class Group>
struct ReadAhead {
  GroupBlocks<Group> group;
  size_t first, end;

  HWY_INLINE void Fetch(size_t block) const {
    const auto* bytes = reinterpret_cast<const uint8_t*>(&group[block]);
    for (size_t i = first; i < end; i += 64) PrefetchL2(bytes + i);
  }
};

/// f(token, plane), as constants.
template <size_t kTokens, size_t kPlanes, class F>
HWY_INLINE void EachTokenAndPlane(F&& f) {
  Unroll<kTokens * kPlanes>([&](auto i)
                                LAB_LAMBDA { f(Index<i / kPlanes>(), Index<i % kPlanes>()); });
}

/// dots[v][t][plane] += products of a super-block. acts: where each token's activations of it
/// begin. The halves of a sub-block are taken at once by a vector alone, and one after the other by
/// vectors that share the activations, or registers would not do.
///
/// Several tokens are a loop: on Ice Lake it runs 7 (VNNI) and 12 % (AVX2) faster than 8 times the
/// code, for Q4_K under q8. There a token alone reads Q6_K 17 % slower with a loop.
template <class Vec, size_t kCount, size_t kTokens, size_t kPlanes>
HWY_INLINE void AddProducts(const Vec (&weights)[kCount],
                            const int8_t* const (&acts)[kTokens][kPlanes],
                            I32Vec (&dots)[kCount][kTokens][kPlanes]) {
  constexpr size_t kHalves = kCount == 1 ? 2 : 1, kWords = 2 * kHalves;
  const auto sub_block = [&](size_t s) LAB_LAMBDA {
    WordDot<Vec::kQuads> words[kCount][kTokens][kPlanes];
    Unroll<2 / kHalves>([&](auto step) LAB_LAMBDA {
      const auto each_half = [&](auto&& f) LAB_LAMBDA {
        Unroll<kCount * kHalves>([&](auto i) LAB_LAMBDA {
          f(Index<i / kHalves>(), Index<i % kHalves>(), Index<kHalves * step + i % kHalves>());
        });
      };
      U8Vec w[kCount][kWords];
      each_half([&](auto v, auto i, auto half)
                    LAB_LAMBDA { weights[v].template Words<half>(s, w[v] + 2 * i); });
      EachTokenAndPlane<kTokens, kPlanes>([&](auto t, auto plane) LAB_LAMBDA {
        hn::Vec<I8> x[kWords];
        Unroll<kWords>([&](auto i) LAB_LAMBDA {
          x[i] = Broadcast(I8(), acts[t][plane] + s * 32 + (kWords * step + i) * 8);
        });
        each_half([&](auto v, auto i, auto half) LAB_LAMBDA {
          weights[v].template Add<half>(s, dots[v][t][plane], words[v][t][plane], w[v] + 2 * i,
                                        x + 2 * i);
        });
      });
    });
  };
  if constexpr (kTokens == 1)
    Unroll<8>(sub_block);
  else
    for (size_t s = 0; s < 8; ++s) sub_block(s);
}

/// Adds super-block `block` times every token's activations, for vectors kFirst .. of the group.
template <size_t kFirst, size_t kCount, class Group, size_t kTokens, class Acts>
HWY_INLINE void AddGroup(const Group& group, const Acts& x, size_t t0, size_t block,
                         FloatVec (&sums)[kVecs][kTokens]) {
  constexpr size_t kPlanes = Acts::kPlanes;
  VecOf<Group> weights[kCount];
  const int8_t* acts[kTokens][kPlanes];
  I32Vec dots[kCount][kTokens][kPlanes];
  EachTokenAndPlane<kTokens, kPlanes>([&](auto t, auto plane) LAB_LAMBDA {
    const int8_t* const first = Unrelated(x.planes[plane] + t0 * x.n + block * 256) + t * x.n;
    acts[t][plane] = kCount == 1 ? first : Unrelated(first);
    Unroll<kCount>([&](auto v) LAB_LAMBDA { dots[v][t][plane] = hn::Zero(I32()); });
  });
  Unroll<kCount>([&](auto v) LAB_LAMBDA { weights[v].Load(group, kFirst + v); });
  AddProducts(weights, acts, dots);
  Unroll<kCount>([&](auto v) LAB_LAMBDA {
    Unroll<kTokens>([&](auto t) LAB_LAMBDA {
      const auto folded = [&](size_t plane) LAB_LAMBDA {
        return hn::ConvertTo(Floats(),
                             weights[v].Fold(dots[v][t][plane], x.Sums(t0 + t, plane, block)));
      };
      auto dot = folded(0);
      if constexpr (kPlanes == 2) dot = hn::MulAdd(hn::Set(Floats(), 256.0f), dot, folded(1));
      const auto scale = hn::Set(Floats(), x.scale[(t0 + t) * (x.n / 256) + block]);
      FloatVec& sum = sums[kFirst + v][t];
      sum = hn::MulAdd(hn::Mul(weights[v].d, dot), scale, sum);
    });
  });
}

/// partial + a whole super-block of a group times every token's activations.
template <size_t kTokens, class Group, class Acts>
HWY_INLINE void AddSuperBlock(const Group& group, const Acts& x, size_t t0, size_t block,
                              FloatVec (&partial)[kVecs][kTokens]) {
  // Vectors side by side share the loads of activations, of which a core does two in a cycle at
  // most.
  constexpr size_t kTogether = std::min<size_t>(kVecs, 2);
  Unroll<kVecs / kTogether>(
      [&](auto i) LAB_LAMBDA { AddGroup<kTogether * i, kTogether>(group, x, t0, block, partial); });
}

template <size_t kTokens>
HWY_INLINE void SetToZero(FloatVec (&partial)[kVecs][kTokens]) {
  Unroll<kVecs>([&](auto v) LAB_LAMBDA {
    Unroll<kTokens>([&](auto t) LAB_LAMBDA { partial[v][t] = hn::Zero(Floats()); });
  });
}

/// sums[t][r] = row r: its even lane, of products, less its odd one, of minimums.
template <size_t kTokens>
HWY_INLINE void StoreSums(const FloatVec (&partial)[kVecs][kTokens], float (&sums)[kTokens][8]) {
  Unroll<kVecs>([&](auto v) LAB_LAMBDA {
    Unroll<kTokens>([&](auto t) LAB_LAMBDA {
      const FloatVec total = hn::Sub(hn::ConcatEven(Floats(), partial[v][t], partial[v][t]),
                                     hn::ConcatOdd(Floats(), partial[v][t], partial[v][t]));
      hn::StoreU(hn::LowerHalf(total), hn::Half<Floats>(), sums[t] + v * kVecRows);
    });
  });
}

/// sums[t][r] = row r of the group times token t0 + t. Fetches bytes [ahead.first, ahead.end) of
/// every super-block of ahead.group on the way.
///
/// Not inlined: four of them in one function take a sanitizer build ten minutes to compile.
template <size_t kTokens, class Group, class Acts>
HWY_NOINLINE void GroupTile(GroupBlocks<Group> group, const Acts& x, size_t t0,
                            ReadAhead<Group> ahead, float (&sums)[kTokens][8]) {
  FloatVec partial[kVecs][kTokens];
  SetToZero(partial);
  for (size_t b = 0; b < x.n / 256; ++b) {
    ahead.Fetch(b);
    AddSuperBlock(group[b], x, t0, b, partial);
  }
  StoreSums(partial, sums);
}

/// Asks for weights that are read once, a super-block at a time, some way ahead. For processors
/// whose best target is AVX2: on Zen 3 a token alone then reads 80 % of what a plain read gets,
/// without 67; any distance from 1 to 16 KB will do. On Zen 4 it costs up to a fifth
/// (notes/results.md, "Reading ahead").
template <class Group>
HWY_INLINE void StreamAhead([[maybe_unused]] const Group* group) {
#if HWY_TARGET == HWY_AVX2
  constexpr uintptr_t kAhead = 4096;
  const auto at = reinterpret_cast<uintptr_t>(group) + kAhead;
  for (size_t i = 0; i < sizeof(Group); i += 64)
    __builtin_prefetch(reinterpret_cast<const void*>(at + i), /*rw=*/0, /*locality=*/0);
#endif
}

/// sums[g][0][r] = row r of group g of a whole bundle times token t.
template <class Group, class Acts>
HWY_NOINLINE void BundleTile(const Group* bundle, const Acts& x, size_t t,
                             float (&sums)[kBundleGroups][1][8]) {
  FloatVec partial[kBundleGroups][kVecs][1];
  for (auto& of_group : partial) SetToZero(of_group);
  for (size_t b = 0; b < x.n / 256; ++b)
    for (auto& of_group : partial) {
      StreamAhead(bundle);
      AddSuperBlock(*bundle++, x, t, b, of_group);
    }
  for (size_t g = 0; g < kBundleGroups; ++g) StoreSums(partial[g], sums[g]);
}

/// store(t, sums of the 8 rows) for tokens [t, end), in tiles of kTokens, then of half as many.
/// They use the group again and again: each tile fetches its share of the next one.
/// A matrix meets a single token as one long stream instead (BundleTile).
template <size_t kTokens, class Group, class Acts, class Store>
HWY_INLINE void TokenTiles(GroupBlocks<Group> group, GroupBlocks<Group> next, const Acts& x,
                           size_t begin, size_t t, size_t end, Store&& store) {
  const auto share = [&](size_t token) LAB_LAMBDA {
    return end - begin == 1 ? 0 : sizeof(Group) * (token - begin) / (end - begin);
  };
  for (; t + kTokens <= end; t += kTokens) {
    float sums[kTokens][8];
    GroupTile(group, x, t, ReadAhead<Group>{next, share(t), share(t + kTokens)}, sums);
    for (size_t i = 0; i < kTokens; ++i) store(t + i, sums[i]);
  }
  if constexpr (kTokens > 1) TokenTiles<kTokens / 2>(group, next, x, begin, t, end, store);
}

// As many tokens share the unpacking of weights as the registers hold sums of.
template <size_t kPlanes>
constexpr size_t kMaxTile = (kLanes == 16 ? 8 : 4) / kPlanes;
// So many tokens and rows are gone through at a time that both stay in the caches.
constexpr size_t kCacheTokens = 64;

/// store(r0, t, sums of rows r0 .. r0 + 7) for all whole groups and tokens: a single token goes
/// over a bundle at once, several go over one group after the other.
template <class Group, class Acts, class Store>
HWY_INLINE void GroupsTimesTokens(const WeightView& w, const Acts& x, size_t tokens,
                                  Store&& store) {
  const size_t groups = w.rows / 8;
  for (size_t t = 0; t < tokens; t += kCacheTokens) {
    const size_t end = std::min(t + kCacheTokens, tokens);
    for (size_t g = 0; g < groups;) {
      const auto group = BlocksOfGroup<Group>(w, g);
      if (end - t == 1 && group.stride == kBundleGroups) {
        float sums[kBundleGroups][1][8];
        BundleTile(group.at, x, t, sums);
        for (const auto& of_group : sums) store(8 * g++, t, of_group[0]);
        continue;
      }
      const auto put = [&](size_t token, const float(&sums)[8])
                           LAB_LAMBDA { store(8 * g, token, sums); };
      const auto next = BlocksOfGroup<Group>(w, g + 1 < groups ? g + 1 : g);
      TokenTiles<kMaxTile<Acts::kPlanes>>(group, next, x, t, t, end, put);
      ++g;
    }
  }
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR
#endif
