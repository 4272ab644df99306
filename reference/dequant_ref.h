#pragma once
#include "kernels/block_types.h"

namespace lab {

/// The value of an IEEE half float; subnormals, infinities and NaN included.
float HalfToFloat(uint16_t h);

/// out[i] = weight i of `n` weights stored as `type` from `blocks` on; n is a multiple of the block
/// length. The reference for every block type: bit for bit the `gguf` Python package (0.19).
void DequantRow(BlockType type, const uint8_t* blocks, size_t n, float* out);

/// out[i] = |d sc q| + |dmin m| for weights with a minimum (Q4_K, Q5_K), |weight i| for all others:
/// what a kernel that keeps the two parts apart rounds. Same arguments as DequantRow.
void DequantMagnitudes(BlockType type, const uint8_t* blocks, size_t n, float* out);

}  // namespace lab
