#pragma once
// The block types of GGUF weight files: layout and size. Unpacking lives with each implementation.
// Source: ggml's block layouts (ggml-common.h) and type numbers (ggml.h).
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lab {

/// Values are the type numbers of GGUF.
enum class BlockType : uint32_t {
  F32 = 0,
  F16 = 1,
  Q4_0 = 2,
  Q5_0 = 6,
  Q8_0 = 8,
  Q4_K = 12,
  Q5_K = 13,
  Q6_K = 14,
  BF16 = 30,
};

struct BlockTypeInfo {
  BlockType type;
  std::string_view name;
  uint32_t elements;  ///< values in one block
  uint32_t bytes;     ///< bytes of one block
};

/// The types lab computes with, in the order in which reports list them.
inline constexpr std::array<BlockTypeInfo, 9> kBlockTypes = {{
    {BlockType::F32, "F32", 1, 4},
    {BlockType::F16, "F16", 1, 2},
    {BlockType::BF16, "BF16", 1, 2},
    {BlockType::Q4_0, "Q4_0", 32, 18},
    {BlockType::Q5_0, "Q5_0", 32, 22},
    {BlockType::Q8_0, "Q8_0", 32, 34},
    {BlockType::Q4_K, "Q4_K", 256, 144},
    {BlockType::Q5_K, "Q5_K", 256, 176},
    {BlockType::Q6_K, "Q6_K", 256, 210},
}};

/// The entry of `type`; null for a number that is none of ours.
constexpr const BlockTypeInfo* FindBlockType(uint32_t type) {
  for (const BlockTypeInfo& info : kBlockTypes)
    if (static_cast<uint32_t>(info.type) == type) return &info;
  return nullptr;
}

constexpr const BlockTypeInfo& InfoOf(BlockType type) {
  return *FindBlockType(static_cast<uint32_t>(type));
}

// The 16-bit fields are IEEE half floats. All structs have the alignment of their 16-bit fields (or
// none), and tensor data in GGUF is aligned to at least 8 bytes, so they can be read in place.

struct BlockQ4_0 {  ///< x[i] = d (q - 8); byte j holds x[j] (low nibble) and x[j+16]
  uint16_t d;
  uint8_t qs[16];
};
struct BlockQ5_0 {  ///< x[i] = d (q - 16); bit i of qh is the fifth bit of x[i]
  uint16_t d;
  uint8_t qh[4];
  uint8_t qs[16];
};
struct BlockQ8_0 {  ///< x[i] = d q
  uint16_t d;
  int8_t qs[32];
};
/// x = d sc q - dmin m, with six-bit sc and m for each of 8 sub-blocks of 32 packed in `scales`:
/// sub-blocks 0-3: sc in the low six bits of byte j, m in those of byte j+4; sub-blocks 4-7: low
/// four bits in the nibbles of byte j+4 (sc low, m high), high two bits on top of bytes j-4 and j.
/// Bytes 32k..32k+31 of qs hold sub-block 2k in the low and 2k+1 in the high nibbles.
struct BlockQ4_K {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qs[128];
};
/// As Q4_K; bit s of qh[i] is the fifth bit of value i of sub-block s.
struct BlockQ5_K {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
/// x = d sc (q - 32) with int8 sc for each of 16 groups of 16. In each half of 128 values: value
/// 32k+i (k 0..3) has its low bits in nibble k/2 of ql[32(k%2)+i], its high two in bits 2k of
/// qh[i].
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;
};

static_assert(sizeof(BlockQ4_0) == InfoOf(BlockType::Q4_0).bytes);
static_assert(sizeof(BlockQ5_0) == InfoOf(BlockType::Q5_0).bytes);
static_assert(sizeof(BlockQ8_0) == InfoOf(BlockType::Q8_0).bytes);
static_assert(sizeof(BlockQ4_K) == InfoOf(BlockType::Q4_K).bytes);
static_assert(sizeof(BlockQ5_K) == InfoOf(BlockType::Q5_K).bytes);
static_assert(sizeof(BlockQ6_K) == InfoOf(BlockType::Q6_K).bytes);

/// Slices of ops that are dots with weights begin at multiples of so many rows: where the bundles
/// of repacked rows do (kernels/rows8.h).
inline constexpr size_t kRowsSliceGrain = 32;

/// A matrix of weights as stored in the file: `rows` rows of `cols` values, row after row. `cols`
/// is a multiple of the block length. Not owned.
struct WeightView {
  BlockType type = BlockType::F32;
  const uint8_t* data = nullptr;
  size_t rows = 0;
  size_t cols = 0;
  /// The same weights, as far as they make groups of eight rows, repacked (kernels/rows8.h), for
  /// kernels that read those; or null.
  const uint8_t* rows8 = nullptr;

  size_t row_bytes() const { return cols / InfoOf(type).elements * InfoOf(type).bytes; }
  size_t bytes() const { return rows * row_bytes(); }
  const uint8_t* row(size_t r) const { return data + r * row_bytes(); }
  /// Rows [begin, end). Keeps rows8 if they are whole bundles, or go on to the last row.
  WeightView Rows(size_t begin, size_t end) const {
    const bool whole = begin % kRowsSliceGrain == 0 && (end % kRowsSliceGrain == 0 || end == rows);
    return {type, row(begin), end - begin, cols,
            rows8 && whole ? rows8 + begin * row_bytes() : nullptr};
  }
};

}  // namespace lab
