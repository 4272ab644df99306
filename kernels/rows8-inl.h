// Weights repacked by eight rows (kernels/rows8.h) times activations in integers: tiles of tokens
// in a prefill, streams of weights for a token alone.
//
// Sums stay integers until the end of a super-block (kernels/rows8_vec-inl.h). The planes meet as
// floats. A token's order of additions depends on the number of columns alone, whatever the tile it
// is in.

#if defined(LAB_KERNELS_ROWS8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAB_KERNELS_ROWS8_INL_H_
#undef LAB_KERNELS_ROWS8_INL_H_
#else
#define LAB_KERNELS_ROWS8_INL_H_
#endif

#include <algorithm>
#include <array>

#include "kernels/quantize.h"
#include "kernels/rows8_vec-inl.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

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

/// Asks for the next super-block of weights that are read once. For processors whose best target is
/// AVX2: on Zen 3 a token alone then reads faster, on Zen 4 it costs up to a fifth
/// (notes/results.md, "Reading ahead", "Two streams").
template <class Group>
HWY_INLINE void StreamAhead([[maybe_unused]] const Group* group) {
#if HWY_TARGET == HWY_AVX2
  const auto* next = reinterpret_cast<const uint8_t*>(group + 1);
  for (size_t i = 0; i < sizeof(Group); i += 64)
    __builtin_prefetch(next + i, /*rw=*/0, /*locality=*/0);
#endif
}

/// Bundles that a token alone goes over at once. On Zen 3 the hardware reads two streams further
/// ahead than one; with two planes arithmetic is the limit there (notes/results.md, "Two streams").
template <size_t kPlanes>
constexpr size_t kStreams = HWY_TARGET != HWY_AVX2 || kPlanes > 1 ? 1 : 2;

/// sums[i][g][0][r] = row r of group g of whole bundle number i times token t.
template <size_t kCount, class Group, class Acts>
HWY_NOINLINE void BundleTile(std::array<const Group*, kCount> bundles, const Acts& x, size_t t,
                             float (&sums)[kCount][kBundleGroups][1][8]) {
  FloatVec partial[kCount][kBundleGroups][kVecs][1];
  for (auto& of_bundle : partial)
    for (auto& of_group : of_bundle) SetToZero(of_group);
  for (size_t b = 0; b < x.n / 256; ++b)
    for (size_t g = 0; g < kBundleGroups; ++g)
      for (size_t i = 0; i < kCount; ++i) {
        StreamAhead(bundles[i]);
        AddSuperBlock(*bundles[i]++, x, t, b, partial[i][g]);
      }
  for (size_t i = 0; i < kCount; ++i)
    for (size_t g = 0; g < kBundleGroups; ++g) StoreSums(partial[i][g], sums[i][g]);
}

/// store(group, sums of its 8 rows) for token t and kCount * n whole bundles of a matrix from
/// bundle `begin` on: bundle b of each n side by side.
template <size_t kCount, class Group, class Acts, class Store>
HWY_INLINE void BundlesTimesToken(const WeightView& w, const Acts& x, size_t t, size_t begin,
                                  size_t n, Store&& store) {
  for (size_t b = begin; b < begin + n; ++b) {
    std::array<const Group*, kCount> bundles;
    for (size_t i = 0; i < kCount; ++i)
      bundles[i] = BlocksOfGroup<Group>(w, (b + i * n) * kBundleGroups).at;
    float sums[kCount][kBundleGroups][1][8];
    BundleTile(bundles, x, t, sums);
    for (size_t i = 0; i < kCount; ++i)
      for (size_t g = 0; g < kBundleGroups; ++g)
        store((b + i * n) * kBundleGroups + g, sums[i][g][0]);
  }
}

/// store(t, sums of the 8 rows) for tokens [t, end), in tiles of kTokens, then of half as many.
/// They use the group again and again: each tile fetches its share of the next one.
/// A matrix meets a single token as long streams instead (BundleTile).
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
/// over whole bundles, several go over one group after the other.
template <class Group, class Acts, class Store>
HWY_INLINE void GroupsTimesTokens(const WeightView& w, const Acts& x, size_t tokens,
                                  Store&& store) {
  const size_t groups = w.rows / 8, bundles = groups / kBundleGroups;
  for (size_t t = 0; t < tokens; t += kCacheTokens) {
    const size_t end = std::min(t + kCacheTokens, tokens);
    size_t g = 0;
    if (end - t == 1) {
      const auto put = [&](size_t group, const float(&sums)[8])
                           LAB_LAMBDA { store(8 * group, t, sums); };
      constexpr size_t kCount = kStreams<Acts::kPlanes>;
      const size_t share = bundles / kCount;
      BundlesTimesToken<kCount, Group>(w, x, t, 0, share, put);
      BundlesTimesToken<1, Group>(w, x, t, share * kCount, bundles - share * kCount, put);
      g = bundles * kBundleGroups;
    }
    for (; g < groups; ++g) {
      const auto put = [&](size_t token, const float(&sums)[8])
                           LAB_LAMBDA { store(8 * g, token, sums); };
      const auto next = BlocksOfGroup<Group>(w, g + 1 < groups ? g + 1 : g);
      TokenTiles<kMaxTile<Acts::kPlanes>>(BlocksOfGroup<Group>(w, g), next, x, t, t, end, put);
    }
  }
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR
#endif
