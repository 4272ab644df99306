#pragma once
// Made-up blocks of every type for the edge cases, the same bytes on every machine.
#include <cstdint>
#include <vector>

#include "kernels/block_types.h"
#include "lab/random.h"

namespace lab {

/// What is special about the blocks of a matrix. The codes (the bits of single weights) are random
/// unless it says otherwise. Types without blocks (F32, F16, BF16) take the values of the same
/// name.
enum class Fill {
  ordinary,       ///< weights of about 0.05
  integers,       ///< whole numbers up to 128: d = dmin = 1 and small sub-block scales
  zero,           ///< d = dmin = 0; float types hold 0 and -0
  largest,        ///< d = dmin = 65504, the largest half; BF16 and F32: up to 2^100
  subnormal,      ///< d and dmin are subnormal halves; float types are subnormal themselves
  every_scale,    ///< K-quants: the scale codes count up, so that all occur
  cancelling,     ///< Q4_K, Q5_K: d sc q and dmin m differ by a thousandth
  extreme_codes,  ///< quantised types: the largest |d sc q| that the block can hold
};

/// `rows` rows of `cols` weights, cols a multiple of the type's block length. Q4_K and Q5_K hold
/// all 64 scales and all 64 minimums in 8 blocks of every_scale, Q6_K all 256 scales in 16.
std::vector<uint8_t> MakeBlocks(BlockType type, Fill fill, size_t rows, size_t cols,
                                Random& random);

}  // namespace lab
