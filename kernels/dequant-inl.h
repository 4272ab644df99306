// SIMD unpacking of every block type, and the sums of products that need no buffer between the two.

#if defined(LAB_KERNELS_DEQUANT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAB_KERNELS_DEQUANT_INL_H_
#undef LAB_KERNELS_DEQUANT_INL_H_
#else
#define LAB_KERNELS_DEQUANT_INL_H_
#endif

#include "kernels/block_types.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

// Float weights taken 32 at a time, so that every type comes in blocks.
struct Block32F32 {
  float values[32];
};
struct Block32F16 {
  uint16_t values[32];
};
struct Block32BF16 {
  uint16_t values[32];
};

template <class Block>
constexpr size_t kBlockLength = 32;
template <>
constexpr size_t kBlockLength<BlockQ4_K> = 256;
template <>
constexpr size_t kBlockLength<BlockQ5_K> = 256;
template <>
constexpr size_t kBlockLength<BlockQ6_K> = 256;

// Unpack(block, sink) calls sink(local, base, w) with the weights base + local ..
// base + local + kLanes - 1 of the block, in any order that rises among the vectors of one
// remainder of base + local modulo kSums; base is a multiple of kSums, and
// local a constant once all is inlined.
//
// d*sc*q and dmin*m have at most 24 bits, so only the subtraction rounds, with or without FMA.

using Ints = hn::Rebind<int32_t, Floats>;
using IntVec = hn::Vec<Ints>;

template <class Int8>
HWY_INLINE IntVec LoadBytes(const Int8* from) {
  return hn::PromoteTo(Ints(), hn::LoadU(hn::Rebind<Int8, Floats>(), from));
}
HWY_INLINE FloatVec ToFloat(IntVec v) {
  return hn::ConvertTo(Floats(), v);
}
HWY_INLINE IntVec Low4(IntVec v) {
  return hn::And(v, hn::Set(Ints(), 15));
}

template <class Sink>
HWY_INLINE void Unpack(const Block32F32& b, Sink&& sink) {
  Unroll<32 / kLanes>([&](auto i) LAB_LAMBDA {
    sink(i * kLanes, size_t{0}, hn::LoadU(Floats(), b.values + i * kLanes));
  });
}

template <class Sink>
HWY_INLINE void Unpack(const Block32F16& b, Sink&& sink) {
  Unroll<32 / kLanes>([&](auto i) LAB_LAMBDA {
    sink(i * kLanes, size_t{0}, LoadHalf(Floats(), b.values + i * kLanes));
  });
}

template <class Sink>
HWY_INLINE void Unpack(const Block32BF16& b, Sink&& sink) {
  const hn::Rebind<uint16_t, Floats> du16;
  const hn::Rebind<uint32_t, Floats> du32;
  Unroll<32 / kLanes>([&](auto i) LAB_LAMBDA {
    const auto bits = hn::PromoteTo(du32, hn::LoadU(du16, b.values + i * kLanes));
    sink(i * kLanes, size_t{0}, hn::BitCast(Floats(), hn::ShiftLeft<16>(bits)));
  });
}

template <class Sink>
HWY_INLINE void Unpack(const BlockQ8_0& b, Sink&& sink) {
  const FloatVec d = hn::Set(Floats(), HalfValue(b.d));
  Unroll<32 / kLanes>([&](auto i) LAB_LAMBDA {
    sink(i * kLanes, size_t{0}, hn::Mul(d, ToFloat(LoadBytes(b.qs + i * kLanes))));
  });
}

template <class Sink>
HWY_INLINE void Unpack(const BlockQ4_0& b, Sink&& sink) {
  const FloatVec d = hn::Set(Floats(), HalfValue(b.d));
  const IntVec middle = hn::Set(Ints(), 8);
  Unroll<16 / kLanes>([&](auto i) LAB_LAMBDA {
    const IntVec bytes = LoadBytes(b.qs + i * kLanes);
    const IntVec low = hn::Sub(Low4(bytes), middle);
    const IntVec high = hn::Sub(hn::ShiftRight<4>(bytes), middle);
    sink(i * kLanes, size_t{0}, hn::Mul(d, ToFloat(low)));
    sink(16 + i * kLanes, size_t{0}, hn::Mul(d, ToFloat(high)));
  });
}

/// 16 in every lane i whose bit i is set.
HWY_INLINE IntVec FifthBits(uint32_t bits) {
  alignas(64) static constexpr int32_t kBit[16] = {
      1,      1 << 1, 1 << 2,  1 << 3,  1 << 4,  1 << 5,  1 << 6,  1 << 7,
      1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15};
  const Ints di;
  const IntVec own = hn::Load(di, kBit);
  const IntVec set = hn::And(hn::Set(di, static_cast<int32_t>(bits & 0xffff)), own);
  return hn::IfThenElseZero(hn::Eq(set, own), hn::Set(di, 16));
}

template <class Sink>
HWY_INLINE void Unpack(const BlockQ5_0& b, Sink&& sink) {
  const FloatVec d = hn::Set(Floats(), HalfValue(b.d));
  const IntVec middle = hn::Set(Ints(), 16);
  uint32_t fifth;
  std::memcpy(&fifth, b.qh, sizeof fifth);
  Unroll<16 / kLanes>([&](auto i) LAB_LAMBDA {
    const IntVec bytes = LoadBytes(b.qs + i * kLanes);
    const IntVec low = hn::Or(Low4(bytes), FifthBits(fifth >> (i * kLanes)));
    const IntVec high = hn::Or(hn::ShiftRight<4>(bytes), FifthBits(fifth >> (16 + i * kLanes)));
    sink(i * kLanes, size_t{0}, hn::Mul(d, ToFloat(hn::Sub(low, middle))));
    sink(16 + i * kLanes, size_t{0}, hn::Mul(d, ToFloat(hn::Sub(high, middle))));
  });
}

/// d*sc and dmin*m of the eight sub-blocks of a Q4_K or Q5_K block.
struct SubBlockScales {
  alignas(32) float scale[8];
  alignas(32) float min[8];

  template <class Block>
  explicit HWY_INLINE SubBlockScales(const Block& b) {
    // Four six-bit numbers to a word: see the layout at BlockQ4_K.
    uint32_t packed[3];
    std::memcpy(packed, b.scales, sizeof packed);
    const uint32_t sc[2] = {packed[0] & 0x3f3f3f3f,
                            (packed[2] & 0x0f0f0f0f) | (packed[0] >> 2 & 0x30303030)};
    const uint32_t m[2] = {packed[1] & 0x3f3f3f3f,
                           (packed[2] >> 4 & 0x0f0f0f0f) | (packed[1] >> 2 & 0x30303030)};
    Multiply(HalfValue(b.d), sc, scale);
    Multiply(HalfValue(b.dmin), m, min);
  }

 private:
  static HWY_INLINE void Multiply(float factor, const uint32_t (&packed)[2], float* out) {
    const hn::CappedTag<float, 8> d;
    const hn::Rebind<int32_t, decltype(d)> di;
    const hn::Rebind<uint8_t, decltype(d)> du8;
    const auto* bytes = reinterpret_cast<const uint8_t*>(packed);
    for (size_t i = 0; i < 8; i += hn::MaxLanes(d)) {
      const auto integer = hn::PromoteTo(di, hn::LoadU(du8, bytes + i));
      hn::StoreU(hn::Mul(hn::Set(d, factor), hn::ConvertTo(d, integer)), d, out + i);
    }
  }
};

// Q4_K and Q5_K differ by the fifth bit: add_fifth(pair, i, low, high) sets it in the values i and
// following of the two sub-blocks of a pair.
template <class Block, class AddFifth, class Sink>
HWY_INLINE void UnpackKQuant(const Block& b, AddFifth&& add_fifth, Sink& sink) {
  const Floats d;
  const SubBlockScales s(b);
  for (size_t pair = 0; pair < 4; ++pair) {
    const float *scale = s.scale + 2 * pair, *min = s.min + 2 * pair;
    const FloatVec scale0 = hn::Set(d, scale[0]), min0 = hn::Set(d, min[0]);
    const FloatVec scale1 = hn::Set(d, scale[1]), min1 = hn::Set(d, min[1]);
    Unroll<32 / kLanes>([&](auto i) LAB_LAMBDA {
      const IntVec bytes = LoadBytes(b.qs + pair * 32 + i * kLanes);
      IntVec low = Low4(bytes), high = hn::ShiftRight<4>(bytes);
      add_fifth(pair, i * kLanes, low, high);
      sink(i * kLanes, pair * 64, hn::MulSub(ToFloat(low), scale0, min0));
      sink(32 + i * kLanes, pair * 64, hn::MulSub(ToFloat(high), scale1, min1));
    });
  }
}

template <class Sink>
HWY_INLINE void Unpack(const BlockQ4_K& b, Sink&& sink) {
  UnpackKQuant(
      b, [](size_t, size_t, IntVec&, IntVec&) LAB_LAMBDA {}, sink);
}

template <class Sink>
HWY_INLINE void Unpack(const BlockQ5_K& b, Sink&& sink) {
  const auto add_fifth = [&b](size_t pair, size_t i, IntVec& low, IntVec& high) LAB_LAMBDA {
    const Ints di;
    const IntVec bits = hn::ShiftRightSame(LoadBytes(b.qh + i), static_cast<int>(2 * pair));
    low = hn::Or(low, hn::ShiftLeft<4>(hn::And(bits, hn::Set(di, 1))));
    high = hn::Or(high, hn::ShiftLeft<3>(hn::And(bits, hn::Set(di, 2))));
  };
  UnpackKQuant(b, add_fifth, sink);
}

template <class Sink>
HWY_INLINE void Unpack(const BlockQ6_K& b, Sink&& sink) {
  const Floats d;
  const Ints di;
  const IntVec middle = hn::Set(di, 32);
  alignas(64) float scale[16];
  for (size_t i = 0; i < 16; i += kLanes)
    hn::Store(hn::Mul(hn::Set(d, HalfValue(b.d)), ToFloat(LoadBytes(b.scales + i))), d, scale + i);
  for (size_t half = 0; half < 2; ++half) {
    Unroll<32 / kLanes>([&](auto i) LAB_LAMBDA {
      const uint8_t* low = b.ql + half * 64 + i * kLanes;
      const IntVec even = LoadBytes(low), odd = LoadBytes(low + 32);
      const IntVec high = LoadBytes(b.qh + half * 32 + i * kLanes);
      const IntVec two_high_bits = hn::Set(di, 0x30);
      const auto emit = [&](auto k, IntVec low4, IntVec high2) LAB_LAMBDA {
        const IntVec q = hn::Sub(hn::Or(low4, hn::And(high2, two_high_bits)), middle);
        const float s = scale[half * 8 + k * 2 + i * kLanes / 16];
        sink(k * 32 + i * kLanes, half * 128, hn::Mul(hn::Set(d, s), ToFloat(q)));
      };
      emit(Index<0>(), Low4(even), hn::ShiftLeft<4>(high));
      emit(Index<1>(), Low4(odd), hn::ShiftLeft<2>(high));
      emit(Index<2>(), hn::ShiftRight<4>(even), high);
      emit(Index<3>(), hn::ShiftRight<4>(odd), hn::ShiftRight<2>(high));
    });
  }
}

template <class Block>
struct BlockTag {
  using Type = Block;
};

/// f(BlockTag<the block of that type>).
template <class F>
HWY_INLINE void WithBlock(BlockType type, F&& f) {
  switch (type) {
    case BlockType::F32:
      return f(BlockTag<Block32F32>());
    case BlockType::F16:
      return f(BlockTag<Block32F16>());
    case BlockType::BF16:
      return f(BlockTag<Block32BF16>());
    case BlockType::Q4_0:
      return f(BlockTag<BlockQ4_0>());
    case BlockType::Q5_0:
      return f(BlockTag<BlockQ5_0>());
    case BlockType::Q8_0:
      return f(BlockTag<BlockQ8_0>());
    case BlockType::Q4_K:
      return f(BlockTag<BlockQ4_K>());
    case BlockType::Q5_K:
      return f(BlockTag<BlockQ5_K>());
    case BlockType::Q6_K:
      return f(BlockTag<BlockQ6_K>());
  }
}

/// The block behind the last whole one of a row of float weights, with zeros behind its n values.
template <class Block>
HWY_INLINE Block PartialBlock(const Block* from, size_t n) {
  Block block = {};
  std::memcpy(&block, from, n * (sizeof(Block) / kBlockLength<Block>));
  return block;
}

/// n weights from the start of a row.
template <class Block>
HWY_INLINE void DequantBlocks(const Block* b, size_t n, float* out) {
  constexpr size_t kLength = kBlockLength<Block>;
  size_t c = 0;
  for (; c + kLength <= n; c += kLength, ++b) {
    Unpack(*b, [&](size_t local, size_t base, FloatVec w)
                   LAB_LAMBDA { hn::StoreU(w, Floats(), out + c + base + local); });
  }
  if (c == n) return;
  float tail[kLength];
  Unpack(PartialBlock(b, n - c), [&](size_t local, size_t base, FloatVec w)
                                     LAB_LAMBDA { hn::StoreU(w, Floats(), tail + base + local); });
  std::memcpy(out + c, tail, (n - c) * sizeof(float));
}

inline void DequantRow(BlockType type, const uint8_t* row, size_t n, float* out) {
  WithBlock(type, [&](auto tag) HWY_ATTR {
    using Block = typename decltype(tag)::Type;
    DequantBlocks(reinterpret_cast<const Block*>(row), n, out);
  });
}

/// The products of x with kRows rows of weights, as DotTile forms them from unpacked weights, bit
/// for bit. x is gone over once.
template <class Block, size_t kRows>
HWY_INLINE void FusedDot(const uint8_t* const (&rows)[kRows], const float* x, size_t n,
                         float (&out)[kRows]) {
  constexpr size_t kLength = kBlockLength<Block>;
  const Block* blocks[kRows];
  Sums sums[kRows];
  Unroll<kRows>([&](auto r) LAB_LAMBDA {
    blocks[r] = reinterpret_cast<const Block*>(rows[r]);
    Clear(sums[r]);
  });
  const auto add = [&](auto r, const Block& block, const float* at) LAB_LAMBDA {
    Unpack(block, [&](size_t local, size_t base, FloatVec w) LAB_LAMBDA {
      FloatVec& sum = sums[r].v[local % kSums / kLanes];
      sum = hn::MulAdd(w, hn::LoadU(Floats(), at + base + local), sum);
    });
  };
  size_t c = 0;
  for (size_t b = 0; c + kLength <= n; c += kLength, ++b)
    Unroll<kRows>([&](auto r) LAB_LAMBDA { add(r, blocks[r][b], x + c); });
  if constexpr (kLength == kSums) {
    if (c < n) {
      const PaddedTail tail(x + c, n - c);
      Unroll<kRows>([&](auto r) LAB_LAMBDA {
        add(r, PartialBlock(blocks[r] + c / kLength, n - c), tail.values);
      });
    }
  }
  Unroll<kRows>([&](auto r) LAB_LAMBDA { out[r] = Total(sums[r]); });
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
