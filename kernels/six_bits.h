#pragma once
#include <cstdint>
#include <cstring>

namespace lab {

/// The six-bit scales and minimums of Q4_K and Q5_K (BlockQ4_K::scales), one a byte.
struct SixBits {
  uint64_t scales, mins;
};

inline SixBits UnpackSixBits(const uint8_t* packed) {
  uint32_t w[3];
  std::memcpy(w, packed, sizeof w);
  const uint32_t scales_high = (w[2] & 0x0f0f0f0f) | ((w[0] >> 2) & 0x30303030);
  const uint32_t mins_high = ((w[2] >> 4) & 0x0f0f0f0f) | ((w[1] >> 2) & 0x30303030);
  return {(w[0] & 0x3f3f3f3f) | uint64_t{scales_high} << 32,
          (w[1] & 0x3f3f3f3f) | uint64_t{mins_high} << 32};
}

}  // namespace lab
