#pragma once
// Blocks of K-quants as a prefill reads them: copied as they are into shared memory, where a lane
// makes the fragments of kernels/mma.cuh of them. The columns of an mma may be any of a group with
// one scale, as long as A and B agree, so a lane takes neighbouring ones: with t = lane % 4, bytes
// 8t to 8t + 7 of a group of 32, 4t to 4t + 3 of one of 16.
#include "kernels/blocks.cuh"

namespace lab::LAB_CUDA_NAMESPACE {

constexpr bool IsKQuant(BlockType type) {
  return InfoOf(type).elements == 256;
}

template <BlockType kType>
struct KQuant {
  static constexpr bool kHasMins = kType != BlockType::Q6_K;
  static constexpr int kGroups = kHasMins ? 8 : 16;  ///< with one scale, in a block
  static constexpr int kWords = kHasMins ? 2 : 1;    ///< of four bytes, that a lane has of a group
  static constexpr int kBundles = kGroups / 2;       ///< pairs of groups that share bytes
  /// Copied 16 bytes at a time. d of Q6_K, 2 bytes, is not.
  static constexpr unsigned kPieces = InfoOf(kType).bytes / 16;
  /// Bytes from row to row. Of 8 rows that a warp reads, 4 (2-word loads) or all begin in
  /// different banks; but for Q5_K, where the next such distance would be 224.
  static constexpr size_t kStride = kType == BlockType::Q4_K ? 160 : 16 * kPieces;
};

/// Piece `piece` of block `block`, counted from the start of the matrix.
template <BlockType kType>
__device__ const uint8_t* PieceOf(const WeightView& w, size_t block, unsigned piece) {
  if constexpr (kType == BlockType::Q6_K) {
    if (piece < 8) return Field<kType, 0>(w, block) + 16 * piece;
    if (piece < 12) return Field<kType, 1>(w, block) + 16 * (piece - 8);
    return Field<kType, 2>(w, block);
  } else {
    return w.data + block * InfoOf(kType).bytes + 16 * piece;
  }
}

/// Which group number i, 0 or 1, of a bundle is.
template <BlockType kType>
__device__ constexpr int GroupOf(int bundle, int i) {
  if (kType != BlockType::Q6_K) return 2 * bundle + i;
  const int half = bundle / 4, sixteen = bundle / 2 % 2, quarter = bundle % 2 + 2 * i;
  return 8 * half + 2 * quarter + sixteen;
}

__device__ inline unsigned WordAt(const uint8_t* p) {
  return *reinterpret_cast<const unsigned*>(p);
}

/// The scales of the groups of a bundle.
template <BlockType kType>
__device__ void LoadScales(const uint8_t* block, int bundle, int (&scales)[2]) {
  LAB_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int group = GroupOf<kType>(bundle, i);
    unsigned four;
    if constexpr (kType == BlockType::Q6_K)
      four = WordAt(block + 192 + group / 4 * 4);
    else if (group < 4)
      four = WordAt(block + 4) & 0x3f3f3f3f;
    else
      four = (WordAt(block + 12) & 0x0f0f0f0f) | (WordAt(block + 4) >> 2 & 0x30303030);
    scales[i] = static_cast<signed char>(four >> (8 * (group % 4)));
  }
}

/// The fragment of a row of minimums for sums over 16 activations: m[2t], m[2t], m[2t + 1],
/// m[2t + 1].
__device__ inline unsigned MinsOf(const uint8_t* block, unsigned t) {
  const uint4 head = Load16(block);
  const unsigned word =
      t < 2 ? head.z & 0x3f3f3f3f : (head.w >> 4 & 0x0f0f0f0f) | (head.z >> 2 & 0x30303030);
  return __byte_perm(word, 0, t % 2 ? 0x3322 : 0x1100);
}

/// The integers of a lane, of one row and both groups of a bundle, signed bytes without an offset.
template <BlockType kType>
__device__ void UnpackBundle(const uint8_t* block, int bundle, unsigned t,
                             unsigned (&q)[2][KQuant<kType>::kWords]) {
  if constexpr (kType == BlockType::Q6_K) {
    const int half = bundle / 4, sixteen = bundle / 2 % 2, quarter = bundle % 2;
    const uint8_t* const at = block + 16 * sixteen + 4 * t;
    const unsigned low = WordAt(at + 64 * half + 32 * quarter), high = WordAt(at + 128 + 32 * half);
    LAB_UNROLL
    for (int i = 0; i < 2; ++i) {
      const unsigned six =
          (low >> (4 * i) & 0x0f0f0f0f) | (high >> (2 * quarter + 4 * i) & 0x03030303) << 4;
      q[i][0] = (six + 0x60606060) ^ 0x80808080;  // less 32, byte by byte: no carry
    }
  } else {
    constexpr size_t kCodes = InfoOf(kType).bytes - 128;
    const uint2 bytes = *reinterpret_cast<const uint2*>(block + kCodes + 32 * bundle + 8 * t);
    LAB_UNROLL
    for (int i = 0; i < 2; ++i) {
      q[i][0] = bytes.x >> (4 * i) & 0x0f0f0f0f;
      q[i][1] = bytes.y >> (4 * i) & 0x0f0f0f0f;
    }
    if constexpr (kType == BlockType::Q5_K) {
      const uint2 fifth = *reinterpret_cast<const uint2*>(block + 16 + 8 * t);
      LAB_UNROLL
      for (int i = 0; i < 2; ++i) {
        q[i][0] |= (fifth.x >> (2 * bundle + i) & 0x01010101) << 4;
        q[i][1] |= (fifth.y >> (2 * bundle + i) & 0x01010101) << 4;
      }
    }
  }
}

}  // namespace lab::LAB_CUDA_NAMESPACE
