#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

namespace lab {

/// The IEEE half float nearest to x, ties to even; beyond 65520 infinity. NaN stays NaN.
inline uint16_t FloatToHalf(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65520 and more
  if (magnitude < 0x38800000) {
    // Below 2^-14 the step is 2^-24: adding 1/2 makes float32 round to exactly that step.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) - 0x3f000000);
  }
  const uint32_t odd = (magnitude >> 13) & 1;
  return sign | static_cast<uint16_t>((magnitude - 0x38000000 + 0xfff + odd) >> 13);
}

/// The bfloat16 nearest to x, ties to even, as the bits of a float whose lower half is zero. NaN
/// keeps its bits.
inline uint32_t RoundedToBf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return std::isnan(x) ? bits : (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
}

}  // namespace lab
