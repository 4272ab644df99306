// One block of weights times activations in integers, with vectors; part of int_rows-inl.h.

#if defined(LAB_KERNELS_INT_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAB_KERNELS_INT_BLOCKS_INL_H_
#undef LAB_KERNELS_INT_BLOCKS_INL_H_
#else
#define LAB_KERNELS_INT_BLOCKS_INL_H_
#endif

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

// Vectors of 32 bytes, as wide as a sub-block, or two of 16.
using U8 = hn::CappedTag<uint8_t, 32>;
using I8 = hn::Repartition<int8_t, U8>;
using U16 = hn::Repartition<uint16_t, U8>;
using I16 = hn::Repartition<int16_t, U8>;
using I32 = hn::Repartition<int32_t, U8>;
using F32 = hn::Repartition<float, U8>;
using U8Vec = hn::Vec<U8>;
using I16Vec = hn::Vec<I16>;
using I32Vec = hn::Vec<I32>;
constexpr size_t kBytes = hn::MaxLanes(U8());
constexpr size_t kParts = 32 / kBytes;  // vectors of a sub-block

using BlockSum = hn::Vec<F32>;
HWY_INLINE BlockSum ZeroSum() {
  return hn::Zero(F32());
}
HWY_INLINE float SumOf(BlockSum sum) {
  return FoldLanes(F32(), sum);
}

HWY_INLINE U8Vec LowNibbles(U8Vec v) {
  return hn::And(v, hn::Set(U8(), 15));
}

/// Nibble kHigh of every byte.
template <bool kHigh>
HWY_INLINE U8Vec Nibbles(const uint8_t* bytes) {
  const auto v = hn::LoadU(U8(), bytes);
  if constexpr (kHigh) return hn::ShiftRight<4>(v);
  return LowNibbles(v);
}

// Quants<s, p>(block): part p of the 32 values of sub-block s, as stored.

template <size_t s, size_t p>
HWY_INLINE U8Vec Quants(const BlockQ4_K& b) {
  return Nibbles<s % 2 == 1>(b.qs + s / 2 * 32 + p * kBytes);
}

template <size_t s, size_t p>
HWY_INLINE U8Vec Quants(const BlockQ5_K& b) {
  const auto high = hn::LoadU(U8(), b.qh + p * kBytes);
  return hn::Or(Nibbles<s % 2 == 1>(b.qs + s / 2 * 32 + p * kBytes), MoveBits<s, 4>(high, 0x10));
}

template <size_t s, size_t p>
HWY_INLINE U8Vec Quants(const BlockQ6_K& b) {
  constexpr size_t kHalf = s / 4, k = s % 4;
  const auto high = hn::LoadU(U8(), b.qh + kHalf * 32 + p * kBytes);
  return hn::Or(Nibbles<k / 2 == 1>(b.ql + kHalf * 64 + k % 2 * 32 + p * kBytes),
                MoveBits<2 * k, 4>(high, 0x30));
}

/// The scales of a block: 16-bit, those of eight sub-blocks (or of eight groups of 16 values: even
/// groups, then odd ones) in every 128 bits.
struct Scales {
  I16Vec v[kParts];
  /// What part p of sub-block s is multiplied with.
  template <size_t s, size_t p>
  HWY_INLINE I16Vec Get() const {
    const auto index = hn::Set(I16(), static_cast<int16_t>(0x0100 + 0x0202 * s));
    return hn::TableLookupBytes(v[p], hn::BitCast(I16(), index));
  }
};

/// Eight bytes as floats, kBytes / 4 in each part.
template <size_t p>
HWY_INLINE hn::Vec<F32> BytesToFloats(uint64_t bytes) {
  const hn::Rebind<uint8_t, I32> d8;
  using Word = std::conditional_t<kParts == 1, uint64_t, uint32_t>;
  const auto part =
      hn::Set(hn::Repartition<Word, decltype(d8)>(), static_cast<Word>(bytes >> (p * 32)));
  return hn::ConvertTo(F32(), hn::PromoteTo(I32(), hn::BitCast(d8, part)));
}

// What a block brings along besides its quants. Finish() makes its sum of weights times q from the
// sum of quants times q.

struct ScalesAndMins {
  Scales scales;
  hn::Vec<F32> d, mins[kParts];  // dmin m, exact

  template <class Block>
  HWY_INLINE explicit ScalesAndMins(const Block& b) : d(hn::Set(F32(), HalfValue(b.d))) {
    const hn::Rebind<uint8_t, I16> d8;
    const SixBits six = UnpackSixBits(b.scales);
    const auto bytes = hn::Set(hn::Repartition<uint64_t, decltype(d8)>(), six.scales);
    const auto dmin = hn::Set(F32(), HalfValue(b.dmin));
    Unroll<kParts>([&](auto p) LAB_LAMBDA {
      scales.v[p] = hn::PromoteTo(I16(), hn::BitCast(d8, bytes));
      mins[p] = hn::Mul(dmin, BytesToFloats<p>(six.mins));
    });
  }
  template <class Acts>
  HWY_INLINE hn::Vec<F32> Finish(hn::Vec<F32> dot, const Acts& x, size_t token,
                                 size_t block) const {
    const float* sums = x.sums + token * (x.n / 32) + block * 8;
    auto v = hn::Mul(d, dot);
    Unroll<kParts>([&](auto p) LAB_LAMBDA {
      v = hn::NegMulAdd(mins[p], hn::LoadU(F32(), sums + p * kBytes / 4), v);
    });
    return v;
  }
};

/// Part p of 16 bytes.
template <size_t p, class V>
HWY_INLINE I16Vec PromotePart(V bytes) {
  const hn::Half<hn::DFromV<V>> half;
  if constexpr (kParts == 1)
    return hn::PromoteTo(I16(), bytes);
  else if constexpr (p == 0)
    return hn::PromoteTo(I16(), hn::LowerHalf(half, bytes));
  else
    return hn::PromoteTo(I16(), hn::UpperHalf(half, bytes));
}

struct ScalesOnly {
  Scales scales;
  hn::Vec<F32> d;

  HWY_INLINE explicit ScalesOnly(const BlockQ6_K& b) : d(hn::Set(F32(), HalfValue(b.d))) {
    const hn::CappedTag<int8_t, 16> d8;
    HWY_ALIGN static constexpr int8_t kEvenOdd[16] = {0, 2, 4, 6, 8, 10, 12, 14,
                                                      1, 3, 5, 7, 9, 11, 13, 15};
    const auto sorted = hn::TableLookupBytes(hn::LoadU(d8, b.scales), hn::Load(d8, kEvenOdd));
    Unroll<kParts>([&](auto p) LAB_LAMBDA { scales.v[p] = PromotePart<p>(sorted); });
  }
  template <class Acts>
  HWY_INLINE hn::Vec<F32> Finish(hn::Vec<F32> dot, const Acts&, size_t, size_t) const {
    return hn::Mul(d, dot);
  }
};

template <class Block>
using FactorsOf = std::conditional_t<std::is_same_v<Block, BlockQ6_K>, ScalesOnly, ScalesAndMins>;

/// What pairs of products have too much: Q6_K stores q + 32. It has to go lane by lane. Taking
/// 32 sc sum(x) off the whole block was cheaper and equal in integers, but lanes that only cancel
/// each other made errors of 1.6 tolerances as soon as they were floats.
template <class Block>
HWY_INLINE I16Vec OffsetPairs(hn::Vec<I8> q) {
  if constexpr (std::is_same_v<Block, BlockQ6_K>) return PairDot(hn::Set(U8(), 32), q);
  return hn::Zero(I16());
}

/// Adds one block of every row, times every token's activations, to the sums.
template <class Block, size_t kRows, size_t kTokens, class Acts>
HWY_INLINE void AddKBlock(const Block* const (&w)[kRows], const Acts& x, size_t t0, size_t block,
                          BlockSum (&sums)[kRows][kTokens]) {
  constexpr size_t kPlanes = Acts::kPlanes;
  const FactorsOf<Block> factors[2] = {FactorsOf<Block>(*w[0]), FactorsOf<Block>(*w[kRows - 1])};
  I32Vec dots[kRows][kTokens][kPlanes];
  const auto each = [&](auto&& f) LAB_LAMBDA {
    Unroll<kRows * kTokens>([&](auto i) LAB_LAMBDA { f(Index<i % kRows>(), Index<i / kRows>()); });
  };
  each([&](auto r, auto t) LAB_LAMBDA {
    Unroll<kPlanes>([&](auto plane) LAB_LAMBDA { dots[r][t][plane] = hn::Zero(I32()); });
  });
  Unroll<8 * kParts>([&](auto i) LAB_LAMBDA {
    constexpr size_t s = i / kParts, p = i % kParts;
    U8Vec quants[kRows];
    I16Vec scales[kRows];
    Unroll<kRows>([&](auto r) LAB_LAMBDA {
      quants[r] = Quants<s, p>(*w[r]);
      scales[r] = factors[r].scales.template Get<s, p>();
    });
    Unroll<kTokens * kPlanes>([&](auto j) LAB_LAMBDA {
      constexpr size_t t = j / kPlanes, plane = j % kPlanes;
      const auto q = hn::LoadU(I8(), x.planes[plane] + (t0 + t) * x.n + block * 256 + i * kBytes);
      const auto offset = OffsetPairs<Block>(q);
      Unroll<kRows>([&](auto r) LAB_LAMBDA {
        const auto pairs = hn::Sub(PairDot(quants[r], q), offset);
        dots[r][t][plane] = AddPairs(dots[r][t][plane], pairs, scales[r]);
      });
    });
  });
  each([&](auto r, auto t) LAB_LAMBDA {
    auto dot = hn::ConvertTo(F32(), dots[r][t][0]);
    if constexpr (kPlanes == 2)
      dot = hn::MulAdd(hn::Set(F32(), 256.0f), dot, hn::ConvertTo(F32(), dots[r][t][1]));
    const auto scale = hn::Set(F32(), x.scale[(t0 + t) * (x.n / 256) + block]);
    sums[r][t] = hn::MulAdd(factors[r].Finish(dot, x, t0 + t, block), scale, sums[r][t]);
  });
}

// Blocks of 32 values, kOffset more than they mean.

template <size_t p, class V>
HWY_INLINE U8Vec PartOf(V low, V high) {
  if constexpr (kParts == 1)
    return hn::Combine(U8(), high, low);
  else
    return p == 0 ? low : high;
}
template <size_t p>
HWY_INLINE U8Vec Quants32(const uint8_t* nibbles) {
  const hn::CappedTag<uint8_t, 16> d16;
  const auto bytes = hn::LoadU(d16, nibbles);
  return PartOf<p>(hn::And(bytes, hn::Set(d16, 15)), hn::ShiftRight<4>(bytes));
}

template <size_t p>
HWY_INLINE U8Vec Quants32(const BlockQ4_0& b) {
  return Quants32<p>(b.qs);
}

template <size_t p>
HWY_INLINE U8Vec Quants32(const BlockQ5_0& b) {
  HWY_ALIGN static constexpr uint8_t kByteOf[32] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
                                                    2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3};
  uint32_t word;
  std::memcpy(&word, b.qh, sizeof word);
  const auto bits = hn::BitCast(U8(), hn::Set(hn::Repartition<uint32_t, U8>(), word));
  const auto bytes = hn::TableLookupBytes(bits, hn::Load(U8(), kByteOf + p * kBytes));
  const auto bit = hn::BitCast(U8(), hn::Set(hn::Repartition<uint64_t, U8>(), 0x8040201008040201u));
  const auto set = hn::TestBit(bytes, bit);
  return hn::Or(Quants32<p>(b.qs), hn::IfThenElseZero(set, hn::Set(U8(), 16)));
}

template <class Block>
constexpr uint8_t kOffset = std::is_same_v<Block, BlockQ4_0> ? 8 : 16;

template <class Block>
struct Weights32 {
  U8Vec v[kParts];
  HWY_INLINE explicit Weights32(const Block& b) {
    Unroll<kParts>([&](auto p) LAB_LAMBDA { v[p] = Quants32<p>(b); });
  }
  HWY_INLINE I32Vec Dot(const int8_t* x) const {
    auto sum = hn::Zero(I32()), offset = sum;
    Unroll<kParts>([&](auto p) LAB_LAMBDA {
      const auto q = hn::LoadU(I8(), x + p * kBytes);
      sum = AddQuads(sum, v[p], q);
      offset = AddQuads(offset, hn::Set(U8(), kOffset<Block>), q);
    });
    return hn::Sub(sum, offset);
  }
};

// -128 is allowed, and an unsigned form would break the bound of AddQuads: so in 16 bits.
template <>
struct Weights32<BlockQ8_0> {
  I16Vec v[2 * kParts];
  static HWY_INLINE I16Vec Load(const int8_t* from) {
    return hn::PromoteTo(I16(), hn::LoadU(hn::Rebind<int8_t, I16>(), from));
  }
  HWY_INLINE explicit Weights32(const BlockQ8_0& b) {
    for (size_t p = 0; p < 2 * kParts; ++p) v[p] = Load(b.qs + p * kBytes / 2);
  }
  HWY_INLINE I32Vec Dot(const int8_t* x) const {
    auto sum = hn::Zero(I32());
    for (size_t p = 0; p < 2 * kParts; ++p) sum = AddPairs(sum, v[p], Load(x + p * kBytes / 2));
    return sum;
  }
};

template <class Block, size_t kRows, size_t kTokens, class Acts>
HWY_INLINE void Add32Block(const Block* const (&w)[kRows], const Acts& x, size_t t0, size_t block,
                           BlockSum (&sums)[kRows][kTokens]) {
  Unroll<kRows>([&](auto r) LAB_LAMBDA {
    const Weights32<Block> weights(*w[r]);
    const auto d = hn::Set(F32(), HalfValue(w[r]->d));
    Unroll<kTokens>([&](auto t) LAB_LAMBDA {
      const size_t at = (t0 + t) * x.n + block * 32;
      auto dot = weights.Dot(x.planes[0] + at);  // 256 hi + lo: below 4 * 128 * 32512 a lane, twice
      if constexpr (Acts::kPlanes == 2)
        dot = hn::Add(hn::ShiftLeft<8>(dot), weights.Dot(x.planes[1] + at));
      const auto scale = hn::Set(F32(), x.scale[at / 32]);
      sums[r][t] = hn::MulAdd(hn::Mul(d, hn::ConvertTo(F32(), dot)), scale, sums[r][t]);
    });
  });
}

template <class Block, size_t kRows, size_t kTokens, class Acts>
HWY_INLINE void AddBlock(const Block* const (&w)[kRows], const Acts& x, size_t t0, size_t block,
                         BlockSum (&sums)[kRows][kTokens]) {
  if constexpr (kIsKQuant<Block>)
    AddKBlock(w, x, t0, block, sums);
  else
    Add32Block(w, x, t0, block, sums);
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR
#endif
