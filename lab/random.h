#pragma once
#include <cstdint>
#include <cstring>

namespace lab {

/// SplitMix64 (Steele et al. 2014): the same numbers on every machine, which the distributions of
/// the standard library do not promise.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint32_t Below(uint32_t n) { return static_cast<uint32_t>((Next() >> 32) * n >> 32); }
  /// Uniform in [-1, 1), an exact float.
  float Signed() { return static_cast<float>(static_cast<int64_t>(Next()) >> 40) * 0x1p-23f; }
  /// A whole number in [-n, n].
  float Whole(uint32_t n) {
    return static_cast<float>(static_cast<int32_t>(Below(2 * n + 1)) - static_cast<int32_t>(n));
  }
  void Fill(uint8_t* out, size_t n) {
    for (; n >= 8; n -= 8, out += 8) {
      const uint64_t bits = Next();
      std::memcpy(out, &bits, 8);
    }
    const uint64_t bits = Next();
    std::memcpy(out, &bits, n);
  }

 private:
  uint64_t state_;
};

}  // namespace lab
