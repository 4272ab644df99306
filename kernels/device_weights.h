#pragma once
// Weights as kernels on a device read them.
#include <vector>

#include "kernels/block_types.h"

namespace lab {

/// The layout on a device, as many bytes as w.bytes(). Blocks whose length is a multiple of 16
/// bytes (Q4_K, Q5_K) and float weights stay as in the file, and the result is empty. The fields of
/// the others (Q4_0, Q5_0, Q8_0, Q6_K), whose blocks would put every 16-byte load off its
/// alignment, are taken apart: first the one field of all blocks of the matrix, then the next, in
/// the order of FieldsOnDevice.
std::vector<uint8_t> DeviceLayout(const WeightView& w);

struct BlockField {
  size_t offset, bytes;  ///< in a block of the file
};
/// A field of no bytes ends the list; the first is one where blocks stay whole.
struct BlockFields {
  BlockField field[4];
};
constexpr BlockFields FieldsOnDevice(BlockType type) {
  switch (type) {
    case BlockType::Q4_0:
      return {{{offsetof(BlockQ4_0, qs), 16}, {offsetof(BlockQ4_0, d), 2}}};
    case BlockType::Q5_0:
      return {{{offsetof(BlockQ5_0, qs), 16},
               {offsetof(BlockQ5_0, qh), 4},
               {offsetof(BlockQ5_0, d), 2}}};
    case BlockType::Q8_0:
      return {{{offsetof(BlockQ8_0, qs), 32}, {offsetof(BlockQ8_0, d), 2}}};
    case BlockType::Q6_K:
      return {{{offsetof(BlockQ6_K, ql), 128},
               {offsetof(BlockQ6_K, qh), 64},
               {offsetof(BlockQ6_K, scales), 16},
               {offsetof(BlockQ6_K, d), 2}}};
    default:
      return {};
  }
}

}  // namespace lab
