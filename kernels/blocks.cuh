#pragma once
// Unpacking of every block type on the device. The weights of a row come in chunks of 32, two
// groups of 16 neighbouring columns each: what one load of 16 bytes holds (two loads for Q8_0).
// Lanes that take neighbouring chunks read neighbouring bytes.
#include "kernels/cuda.cuh"
#include "kernels/device_weights.h"

namespace lab::LAB_CUDA_NAMESPACE {

constexpr size_t kChunk = 32, kGroup = 16;

__device__ inline float HalfValue(unsigned bits) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
}
/// p is a multiple of 16.
__device__ inline uint4 Load16(const void* p) {
  return *static_cast<const uint4*>(p);
}

/// 16 weights: weight i = scale (byte i of q - offset) - min, bytes signed, the offset that of the
/// block type. d sc q and dmin m have at most 24 bits, so the subtraction alone rounds.
struct Group {
  unsigned q[4];
  float scale, min;
  size_t column;  // of the first
};

template <BlockType kType>
constexpr int kOffset = kType == BlockType::Q4_0   ? 8
                        : kType == BlockType::Q5_0 ? 16
                        : kType == BlockType::Q6_K ? 32
                                                   : 0;

template <BlockType kType>
__device__ inline float WeightOf(const Group& g, size_t i) {
  const int q = static_cast<signed char>(g.q[i / 4] >> (8 * (i % 4)));
  return g.scale * static_cast<float>(q - kOffset<kType>) - g.min;
}

/// Field f of block b of a matrix whose fields are taken apart.
template <BlockType kType, int f>
__device__ const uint8_t* Field(const WeightView& w, size_t b) {
  constexpr BlockFields kFields = FieldsOnDevice(kType);
  const size_t blocks = w.rows * (w.cols / InfoOf(kType).elements);
  size_t before = 0;
  for (int i = 0; i < f; ++i) before += kFields.field[i].bytes;
  return w.data + before * blocks + b * kFields.field[f].bytes;
}
template <BlockType kType, int f>
__device__ float HalfField(const WeightView& w, size_t b) {
  return HalfValue(*reinterpret_cast<const uint16_t*>(Field<kType, f>(w, b)));
}

__device__ inline void SplitNibbles(const uint4& bytes, Group (&g)[2]) {
  const unsigned words[4] = {bytes.x, bytes.y, bytes.z, bytes.w};
  for (int i = 0; i < 4; ++i) {
    g[0].q[i] = words[i] & 0x0f0f0f0f;
    g[1].q[i] = words[i] >> 4 & 0x0f0f0f0f;
  }
}
/// Ors bits, `count` of them from bit `from` of every byte, into bits 4 and up of a group.
__device__ inline void AddHighBits(const uint4& bytes, unsigned from, unsigned mask, Group& g) {
  const unsigned words[4] = {bytes.x, bytes.y, bytes.z, bytes.w};
  for (int i = 0; i < 4; ++i) g.q[i] |= (words[i] >> from & mask) << 4;
}

/// Scale and minimum of sub-block s from the first 16 bytes of a Q4_K or Q5_K block.
__device__ inline void SetSixBits(const uint4& head, unsigned s, Group& g) {
  const unsigned at = 8 * (s % 4);
  unsigned scale, min;
  if (s < 4) {
    scale = head.y >> at & 63;
    min = head.z >> at & 63;
  } else {
    scale = (head.w >> at & 15) | (head.y >> (at + 6) & 3) << 4;
    min = (head.w >> (at + 4) & 15) | (head.z >> (at + 6) & 3) << 4;
  }
  g.scale = HalfValue(head.x & 0xffff) * static_cast<float>(scale);
  g.min = HalfValue(head.x >> 16) * static_cast<float>(min);
}

/// Chunk `chunk` of row `row`, of w.cols / 32. w lies on the device; kType is its type, one of
/// integers.
template <BlockType kType>
__device__ void LoadChunk(const WeightView& w, size_t row, size_t chunk, Group (&g)[2]) {
  if constexpr (kType == BlockType::Q4_K || kType == BlockType::Q5_K) {
    constexpr size_t kBytes = InfoOf(kType).bytes;
    const unsigned part = chunk % 8, pair = part / 2, half = part % 2;
    const uint8_t* const block = w.data + (row * (w.cols / 256) + chunk / 8) * kBytes;
    const uint4 head = Load16(block);
    SplitNibbles(Load16(block + kBytes - 128 + part * 16), g);
    if constexpr (kType == BlockType::Q5_K) {
      const uint4 fifth = Load16(block + 16 + half * 16);
      AddHighBits(fifth, 2 * pair, 0x01010101, g[0]);
      AddHighBits(fifth, 2 * pair + 1, 0x01010101, g[1]);
    }
    for (unsigned i = 0; i < 2; ++i) {
      SetSixBits(head, 2 * pair + i, g[i]);
      g[i].column = chunk / 8 * 256 + pair * 64 + i * 32 + half * 16;
    }
  } else if constexpr (kType == BlockType::Q6_K) {
    const unsigned part = chunk % 8, half = part / 4, k = part / 2 % 2, sixteen = part % 2;
    const size_t block = row * (w.cols / 256) + chunk / 8;
    SplitNibbles(Load16(Field<kType, 0>(w, block) + part * 16), g);
    const uint4 high = Load16(Field<kType, 1>(w, block) + half * 32 + sixteen * 16);
    const auto* const scales = reinterpret_cast<const int8_t*>(Field<kType, 2>(w, block));
    const float d = HalfField<kType, 3>(w, block);
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned quarter = k + 2 * i, in_block = half * 128 + quarter * 32 + sixteen * 16;
      AddHighBits(high, 2 * quarter, 0x03030303, g[i]);
      g[i].scale = d * static_cast<float>(scales[in_block / 16]);
      g[i].min = 0;
      g[i].column = chunk / 8 * 256 + in_block;
    }
  } else {
    const size_t block = row * (w.cols / 32) + chunk;
    if constexpr (kType == BlockType::Q8_0) {
      for (unsigned i = 0; i < 2; ++i) {
        const uint4 q = Load16(Field<kType, 0>(w, block) + i * 16);
        g[i].q[0] = q.x, g[i].q[1] = q.y, g[i].q[2] = q.z, g[i].q[3] = q.w;
      }
    } else {
      SplitNibbles(Load16(Field<kType, 0>(w, block)), g);
    }
    if constexpr (kType == BlockType::Q5_0) {
      const unsigned fifth = *reinterpret_cast<const unsigned*>(Field<kType, 1>(w, block));
      // The multiplication puts four neighbouring bits into one byte each.
      for (unsigned i = 0; i < 8; ++i)
        g[i / 4].q[i % 4] |= ((fifth >> (4 * i) & 15) * 0x00204081 & 0x01010101) << 4;
    }
    const float d = HalfField < kType, kType == BlockType::Q5_0 ? 2 : 1 > (w, block);
    for (unsigned i = 0; i < 2; ++i) {
      g[i].scale = d;
      g[i].min = 0;
      g[i].column = chunk * 32 + i * 16;
    }
  }
}

/// Weight i, counted from the start of the matrix, of float type kType.
template <BlockType kType>
__device__ float FloatWeight(const WeightView& w, size_t i) {
  if constexpr (kType == BlockType::F32) return reinterpret_cast<const float*>(w.data)[i];
  const unsigned bits = reinterpret_cast<const uint16_t*>(w.data)[i];
  return kType == BlockType::F16 ? HalfValue(bits) : __uint_as_float(bits << 16);
}

constexpr bool IsFloatType(BlockType type) {
  return InfoOf(type).elements == 1;
}

template <BlockType kValue>
struct TypeTag {
  static constexpr BlockType kType = kValue;
};
/// f(TypeTag<type>()), on the host or on the device.
template <class F>
constexpr void WithType(BlockType type, F&& f) {
  switch (type) {
    case BlockType::F32:
      return f(TypeTag<BlockType::F32>());
    case BlockType::F16:
      return f(TypeTag<BlockType::F16>());
    case BlockType::BF16:
      return f(TypeTag<BlockType::BF16>());
    case BlockType::Q4_0:
      return f(TypeTag<BlockType::Q4_0>());
    case BlockType::Q5_0:
      return f(TypeTag<BlockType::Q5_0>());
    case BlockType::Q8_0:
      return f(TypeTag<BlockType::Q8_0>());
    case BlockType::Q4_K:
      return f(TypeTag<BlockType::Q4_K>());
    case BlockType::Q5_K:
      return f(TypeTag<BlockType::Q5_K>());
    case BlockType::Q6_K:
      return f(TypeTag<BlockType::Q6_K>());
  }
}

}  // namespace lab::LAB_CUDA_NAMESPACE
