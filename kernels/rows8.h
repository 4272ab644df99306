#pragma once
// Weights repacked so that eight rows stream together: a vector holds eight bytes of every row, and
// eight neighbouring activations are broadcast to all of them.
//
// The rows come in groups of eight, the columns in super-blocks of 256; a super-block of a group is
// one struct below with as many bytes as its eight plain blocks. "Word r" of 64 bytes are bytes
// 8 r .. 8 r + 7, those of row r. Four groups make a bundle: super-block 0 of each, then
// super-block 1 of each, and so on. The last bundle of a matrix may have fewer groups.
#include <algorithm>
#include <vector>

#include "kernels/block_types.h"

namespace lab {

/// A token's activations of one super-block are read by all groups of a bundle before the next
/// ones: group after group, 8960 of them had left the first-level cache when they were needed
/// again.
inline constexpr size_t kBundleGroups = kRowsSliceGrain / 8;

/// The super-blocks of a group: number b is at[b * stride].
template <class Group>
struct GroupBlocks {
  const Group* at;
  size_t stride;  ///< how many groups are in its bundle
  const Group& operator[](size_t b) const { return at[b * stride]; }
};

/// Those of group g of a repacked matrix.
template <class Group>
GroupBlocks<Group> BlocksOfGroup(const WeightView& w, size_t g) {
  const size_t first = g / kBundleGroups * kBundleGroups;
  return {reinterpret_cast<const Group*>(w.rows8) + first * (w.cols / 256) + (g - first),
          std::min(kBundleGroups, w.rows / 8 - first)};
}

/// Where in a word the byte of sub-block or 16-column group i = 0 .. 7 is: those of 0-3 at even
/// places, of 4-7 at odd ones, so that a mask and a shift make 16-bit lanes in natural order.
constexpr size_t PlaceInWord(size_t i) {
  return i % 4 * 2 + i / 4;
}

/// Byte i of word r of qs[c]: column 16 c + i in the low nibble, 16 c + 8 + i in the high one.
struct Rows8Q4_K {
  uint16_t factors[8][2];   ///< d, dmin of every row
  uint8_t mins_high[8][4];  ///< upper four bits of min: place p in nibble p / 4 of byte p % 4
  uint8_t scales[64];       ///< six bits of scale, above them the lower two of min, at their place
  uint8_t qs[16][64];
};

/// In the order in which a kernel reads it: with all of qh before all of ql, decoding from memory
/// was half as fast.
struct Rows8Q6_K {
  uint16_t d[8];
  int8_t scales[2][64];  ///< of 16-column groups 0-7 and 8-15, at their places
  struct {
    uint8_t qh[64];     ///< bits 2 m of byte i of word r: the high ones of column 8 m + i
    uint8_t ql[2][64];  ///< as qs above
  } sub_blocks[8];      ///< of 32 columns
};

static_assert(sizeof(Rows8Q4_K) == 8 * sizeof(BlockQ4_K));
static_assert(sizeof(Rows8Q6_K) == 8 * sizeof(BlockQ6_K));

constexpr bool HasRows8(BlockType type) {
  return type == BlockType::Q4_K || type == BlockType::Q6_K;
}

/// Repacks the whole groups of w.data, w.rows / 8 of them (rows left over are not part of it), to
/// `out`, which has room for as many bytes and does not overlap. HasRows8(w.type).
void RepackRows8(const WeightView& w, uint8_t* out);
/// The same in memory of its own; empty if there is no such form or no whole group.
std::vector<uint8_t> RepackedRows8(const WeightView& w);

}  // namespace lab
