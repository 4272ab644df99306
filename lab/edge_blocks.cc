#include "lab/edge_blocks.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/half.h"

namespace lab {
namespace {

constexpr uint16_t kHalfOne = 0x3c00, kLargestHalf = 0x7bff;

// The half float bits of a block's d or dmin. `ordinary` are the bits of the least ordinary one.
uint16_t BlockScale(Fill fill, uint16_t ordinary, Random& random) {
  switch (fill) {
    case Fill::integers:
      return kHalfOne;
    case Fill::zero:
      return 0;
    case Fill::largest:
      return kLargestHalf;
    case Fill::subnormal:
      return static_cast<uint16_t>(1 + random.Below(1023));
    default:
      return static_cast<uint16_t>(ordinary + random.Below(1024));
  }
}

// The layout at BlockQ4_K, the other way round.
void PackScaleAndMin(uint8_t* packed, size_t s, uint32_t scale, uint32_t min) {
  const auto set = [](uint8_t& byte, uint32_t mask, uint32_t bits) {
    byte = static_cast<uint8_t>((byte & ~mask) | bits);
  };
  if (s < 4) {
    set(packed[s], 0x3f, scale);
    set(packed[s + 4], 0x3f, min);
  } else {
    set(packed[s + 4], 0xff, (scale & 15) | (min & 15) << 4);
    set(packed[s - 4], 0xc0, scale >> 4 << 6);
    set(packed[s], 0xc0, min >> 4 << 6);
  }
}

// Q4_K and Q5_K. `number` counts the blocks of the matrix.
template <class Block>
void FillKQuant(Block& b, Fill fill, size_t number, Random& random) {
  b.d = BlockScale(fill, 0x0800, random);                                     // 2^-13 and more
  b.dmin = BlockScale(fill, sizeof(Block) == 144 ? 0x1400 : 0x1800, random);  // centres the weights
  for (size_t s = 0; s < 8; ++s) {
    const auto code = static_cast<uint32_t>(number * 8 + s) % 64;
    if (fill == Fill::integers)
      PackScaleAndMin(b.scales, s, code % 4, code % 8);
    else if (fill == Fill::every_scale)
      PackScaleAndMin(b.scales, s, code, 63 - code);
    else if (fill == Fill::cancelling)
      PackScaleAndMin(b.scales, s, code % 12 + 1, 5 * (code % 12 + 1));
    else if (fill == Fill::extreme_codes)
      PackScaleAndMin(b.scales, s, 63, s % 2 * 63);
  }
  if (fill == Fill::cancelling) {  // q = 5 everywhere
    std::fill(std::begin(b.qs), std::end(b.qs), uint8_t{0x55});
    if constexpr (requires { b.qh; }) std::fill(std::begin(b.qh), std::end(b.qh), uint8_t{0});
    b.dmin = static_cast<uint16_t>(b.d + 1);
  } else if (fill == Fill::extreme_codes) {
    std::memset(b.qs, 0xff, sizeof b.qs);
    if constexpr (requires { b.qh; }) std::memset(b.qh, 0xff, sizeof b.qh);
  }
}

void FillQ6K(BlockQ6_K& b, Fill fill, size_t number, Random& random) {
  b.d = BlockScale(fill, 0x0400, random);
  for (size_t g = 0; g < 16; ++g) {
    if (fill == Fill::integers) b.scales[g] = static_cast<int8_t>(g % 7) - 3;
    if (fill == Fill::every_scale) b.scales[g] = static_cast<int8_t>(number * 16 + g - 128);
    if (fill == Fill::extreme_codes) b.scales[g] = -128;
  }
  if (fill != Fill::extreme_codes) return;
  std::memset(b.ql, 0, sizeof b.ql);  // q - 32 = -32
  std::memset(b.qh, 0, sizeof b.qh);
}

// Q4_0, Q5_0, Q8_0: codes of the largest magnitude are all zero bits, or -128.
template <class Block>
void Fill32(Block& b, Fill fill, uint16_t ordinary, Random& random) {
  if (fill == Fill::extreme_codes) std::memset(&b, sizeof b == 34 ? 0x80 : 0, sizeof b);
  b.d = BlockScale(fill, ordinary, random);
}

void FillBlock(BlockType type, uint8_t* block, Fill fill, size_t number, Random& random) {
  switch (type) {
    case BlockType::Q4_0:
      return Fill32(*reinterpret_cast<BlockQ4_0*>(block), fill, 0x2000, random);
    case BlockType::Q5_0:
      return Fill32(*reinterpret_cast<BlockQ5_0*>(block), fill, 0x1c00, random);
    case BlockType::Q8_0:
      return Fill32(*reinterpret_cast<BlockQ8_0*>(block), fill, 0x1000, random);
    case BlockType::Q4_K:
      return FillKQuant(*reinterpret_cast<BlockQ4_K*>(block), fill, number, random);
    case BlockType::Q5_K:
      return FillKQuant(*reinterpret_cast<BlockQ5_K*>(block), fill, number, random);
    case BlockType::Q6_K:
      return FillQ6K(*reinterpret_cast<BlockQ6_K*>(block), fill, number, random);
    default:
      return;
  }
}

// A weight of F32, BF16 (which keeps its upper half) or F16.
float FloatWeight(BlockType type, Fill fill, Random& random) {
  const bool half = type == BlockType::F16;
  switch (fill) {
    case Fill::integers:
      return random.Whole(100);
    case Fill::zero:
      return random.Below(2) ? 0.0f : -0.0f;
    case Fill::largest:
      return half ? (random.Below(2) ? 65504.0f : -65504.0f) : random.Signed() * 0x1p100f;
    case Fill::subnormal:
      return half ? random.Whole(1023) * 0x1p-24f
                  : std::bit_cast<float>(static_cast<uint32_t>(random.Next()) & 0x807fffff);
    default:
      return random.Signed() * 0.125f;
  }
}

void PutFloatWeight(BlockType type, float w, uint8_t* out) {
  if (type == BlockType::F32) {
    std::memcpy(out, &w, sizeof w);
    return;
  }
  const auto upper = static_cast<uint16_t>(std::bit_cast<uint32_t>(w) >> 16);
  const uint16_t bits = type == BlockType::F16 ? FloatToHalf(w) : upper;
  std::memcpy(out, &bits, sizeof bits);
}

}  // namespace

std::vector<uint8_t> MakeBlocks(BlockType type, Fill fill, size_t rows, size_t cols,
                                Random& random) {
  const BlockTypeInfo& info = InfoOf(type);
  std::vector<uint8_t> bytes(rows * cols / info.elements * info.bytes);
  if (info.elements > 1) random.Fill(bytes.data(), bytes.size());
  for (size_t i = 0; i < bytes.size() / info.bytes; ++i) {
    uint8_t* block = bytes.data() + i * info.bytes;
    if (info.elements == 1)
      PutFloatWeight(type, FloatWeight(type, fill, random), block);
    else
      FillBlock(type, block, fill, i, random);
  }
  return bytes;
}

}  // namespace lab
