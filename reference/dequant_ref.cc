// Unpacking of every block type, one value at a time. A weight *is* the float32 value that float32
// arithmetic gives here; oracle and yardstick differ only in what they compute from it.
#include "reference/dequant_ref.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/dequant.h"

namespace lab {

float HalfToFloat(uint16_t h) {
  const uint32_t sign = (h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 31, mantissa = h & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

namespace {

void Unpack(const BlockQ4_0& b, float* out) {
  const float d = HalfToFloat(b.d);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>((b.qs[j] & 15) - 8);
    out[j + 16] = d * static_cast<float>((b.qs[j] >> 4) - 8);
  }
}

void Unpack(const BlockQ5_0& b, float* out) {
  const float d = HalfToFloat(b.d);
  for (int i = 0; i < 32; ++i) {
    const int low = i < 16 ? b.qs[i] & 15 : b.qs[i - 16] >> 4;
    const int high = (b.qh[i / 8] >> (i % 8)) & 1;
    out[i] = d * static_cast<float>((low | high << 4) - 16);
  }
}

void Unpack(const BlockQ8_0& b, float* out) {
  const float d = HalfToFloat(b.d);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(b.qs[i]);
}

struct SubBlockScale {
  int scale, min;
};

SubBlockScale UnpackScale(const uint8_t* scales, int s) {
  if (s < 4) return {scales[s] & 63, scales[s + 4] & 63};
  return {(scales[s + 4] & 15) | (scales[s - 4] >> 6) << 4, (scales[s + 4] >> 4) | (scales[s] >> 6)
                                                                                       << 4};
}

// Q4_K and Q5_K differ by the fifth bit alone: high(s, i) is that bit of value i of sub-block s.
// join puts d sc q and dmin m together.
template <class Block, class HighBit, class Join>
void UnpackKQuant(const Block& b, HighBit high, Join join, float* out) {
  const float d = HalfToFloat(b.d), dmin = HalfToFloat(b.dmin);
  for (int s = 0; s < 8; ++s) {
    const SubBlockScale sub = UnpackScale(b.scales, s);
    const float scale = d * static_cast<float>(sub.scale);
    const float min = dmin * static_cast<float>(sub.min);
    for (int i = 0; i < 32; ++i) {
      const uint8_t byte = b.qs[s / 2 * 32 + i];
      const int low = s % 2 == 0 ? byte & 15 : byte >> 4;
      out[s * 32 + i] = join(scale * static_cast<float>(low + 16 * high(s, i)), min);
    }
  }
}

template <class Join>
void UnpackWith(const BlockQ4_K& b, Join join, float* out) {
  UnpackKQuant(
      b, [](int, int) { return 0; }, join, out);
}

template <class Join>
void UnpackWith(const BlockQ5_K& b, Join join, float* out) {
  UnpackKQuant(
      b, [&](int s, int i) { return b.qh[i] >> s & 1; }, join, out);
}

template <class Block>
requires requires(const Block& b) {
  b.dmin;
}
void Unpack(const Block& b, float* out) {
  UnpackWith(
      b, [](float value, float min) { return value - min; }, out);
}

void Unpack(const BlockQ6_K& b, float* out) {
  const float d = HalfToFloat(b.d);
  for (int v = 0; v < 256; ++v) {
    const int half = v / 128, k = v % 128 / 32, i = v % 32;
    const uint8_t low_byte = b.ql[half * 64 + k % 2 * 32 + i];
    const int low = k < 2 ? low_byte & 15 : low_byte >> 4;
    const int high = b.qh[half * 32 + i] >> (2 * k) & 3;
    const float scale = d * static_cast<float>(b.scales[v / 16]);
    out[v] = scale * static_cast<float>((low | high << 4) - 32);
  }
}

template <class Block>
void UnpackRow(const uint8_t* blocks, size_t n, size_t block_length, float* out) {
  const auto* b = reinterpret_cast<const Block*>(blocks);
  for (size_t i = 0; i < n / block_length; ++i) Unpack(b[i], out + i * block_length);
}

uint16_t Load16(const uint8_t* p, size_t i) {
  uint16_t v;
  std::memcpy(&v, p + 2 * i, sizeof v);
  return v;
}

template <class T>
void Dequant(const DequantArgs<T>& a) {
  float block[256];
  const size_t blocks = a.w.rows * a.w.cols / 256, bytes = InfoOf(a.w.type).bytes;
  for (size_t b = 0; b < blocks; ++b) {
    DequantRow(a.w.type, a.w.data + b * bytes, 256, block);
    for (size_t i = 0; i < 256; ++i) a.y[b * 256 + i] = block[i];
  }
}

}  // namespace

void DequantRow(BlockType type, const uint8_t* blocks, size_t n, float* out) {
  switch (type) {
    case BlockType::F32:
      std::memcpy(out, blocks, n * sizeof(float));
      return;
    case BlockType::F16:
      for (size_t i = 0; i < n; ++i) out[i] = HalfToFloat(Load16(blocks, i));
      return;
    case BlockType::BF16:
      for (size_t i = 0; i < n; ++i)
        out[i] = std::bit_cast<float>(static_cast<uint32_t>(Load16(blocks, i)) << 16);
      return;
    case BlockType::Q4_0:
      return UnpackRow<BlockQ4_0>(blocks, n, 32, out);
    case BlockType::Q5_0:
      return UnpackRow<BlockQ5_0>(blocks, n, 32, out);
    case BlockType::Q8_0:
      return UnpackRow<BlockQ8_0>(blocks, n, 32, out);
    case BlockType::Q4_K:
      return UnpackRow<BlockQ4_K>(blocks, n, 256, out);
    case BlockType::Q5_K:
      return UnpackRow<BlockQ5_K>(blocks, n, 256, out);
    case BlockType::Q6_K:
      return UnpackRow<BlockQ6_K>(blocks, n, 256, out);
  }
}

void DequantMagnitudes(BlockType type, const uint8_t* blocks, size_t n, float* out) {
  const auto join = [](float value, float min) { return std::abs(value) + std::abs(min); };
  for (size_t i = 0; i < n / 256; ++i) {
    if (type == BlockType::Q4_K)
      UnpackWith(reinterpret_cast<const BlockQ4_K*>(blocks)[i], join, out + 256 * i);
    else if (type == BlockType::Q5_K)
      UnpackWith(reinterpret_cast<const BlockQ5_K*>(blocks)[i], join, out + 256 * i);
  }
  if (type == BlockType::Q4_K || type == BlockType::Q5_K) return;
  DequantRow(type, blocks, n, out);
  for (size_t i = 0; i < n; ++i) out[i] = std::abs(out[i]);
}

void Q4kDequantOracle(const DequantArgs<double>& a) {
  Dequant(a);
}
void Q4kDequantRef(const DequantArgs<float>& a) {
  Dequant(a);
}
void Q6kDequantOracle(const DequantArgs<double>& a) {
  Dequant(a);
}
void Q6kDequantRef(const DequantArgs<float>& a) {
  Dequant(a);
}

}  // namespace lab
