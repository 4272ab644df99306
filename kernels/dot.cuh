#pragma once
// Products of activations with a row of weights, by one warp: its lanes take neighbouring chunks of
// 32 columns (of float weights: neighbouring columns), each in one chain of additions, and WarpSum
// adds them up. Every token has sums of its own, formed in the same order whatever their number.
// Many tokens with K-quants go through kernels/prefill.cuh instead, whose order is another one.
#include "kernels/blocks.cuh"
#include "kernels/quantize.h"
#include "kernels/warp.cuh"

namespace lab::LAB_CUDA_NAMESPACE {

/// How activations come: float, or integers in one plane (contract q8) or two (q16).
enum class Acts { f32, q8, q16 };

inline Acts ActsOf(const QuantizedView& xq) {
  return !xq.hi ? Acts::f32 : xq.lo ? Acts::q16 : Acts::q8;
}

/// The activations of `tokens` tokens from `first` on; at most as many as a kernel is compiled for.
struct TokenTile {
  const float* x;  // [all tokens, cols]
  QuantizedView xq;
  size_t first, tokens;
};

__device__ inline int Dot16(const unsigned (&w)[4], const int8_t* x) {
  const uint4 q = Load16(x);
  int sum = __dp4a(static_cast<int>(w[0]), static_cast<int>(q.x), 0);
  sum = __dp4a(static_cast<int>(w[1]), static_cast<int>(q.y), sum);
  sum = __dp4a(static_cast<int>(w[2]), static_cast<int>(q.z), sum);
  return __dp4a(static_cast<int>(w[3]), static_cast<int>(q.w), sum);
}

/// A group's product with integers, exact inside the group: scale times the integer sum (below 2^24
/// for the K-quants, also under q16) minus min times the sum of the activations.
template <BlockType kType, Acts kActs>
__device__ float GroupDot(const Group& g, const QuantizedView& xq, size_t at) {
  int dot = Dot16(g.q, xq.hi + at);
  if constexpr (kActs == Acts::q16) dot = 256 * dot + Dot16(g.q, xq.lo + at);
  const int sum = xq.sums[at / kGroup];
  dot -= kOffset<kType> * sum;
  return g.scale * static_cast<float>(dot) - g.min * static_cast<float>(sum);
}

template <BlockType kType, Acts kActs, int kTokens>
__device__ void AddGroup(const Group& g, const TokenTile& tile, size_t cols,
                         float (&sums)[kTokens]) {
  float weights[kGroup];
  if constexpr (kActs == Acts::f32) {
    LAB_UNROLL
    for (size_t i = 0; i < kGroup; ++i) weights[i] = WeightOf<kType>(g, i);
  }
  LAB_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    if (kTokens > 1 && t >= static_cast<int>(tile.tokens)) continue;
    const size_t at = (tile.first + static_cast<size_t>(t)) * cols + g.column;
    if constexpr (kActs == Acts::f32) {
      LAB_UNROLL
      for (size_t i = 0; i < kGroup; i += 4) {
        const float4 x = *reinterpret_cast<const float4*>(tile.x + at + i);
        sums[t] = fmaf(weights[i], x.x, sums[t]);
        sums[t] = fmaf(weights[i + 1], x.y, sums[t]);
        sums[t] = fmaf(weights[i + 2], x.z, sums[t]);
        sums[t] = fmaf(weights[i + 3], x.w, sums[t]);
      }
    } else {
      sums[t] =
          fmaf(tile.xq.scale[at / tile.xq.block], GroupDot<kType, kActs>(g, tile.xq, at), sums[t]);
    }
  }
}

/// sums[t] = the product of row `row` of w with token t of the tile, in every lane.
template <BlockType kType, Acts kActs, int kTokens>
__device__ void DotRow(const WeightView& w, size_t row, const TokenTile& tile,
                       float (&sums)[kTokens]) {
  const unsigned lane = threadIdx.x % kWarp;
  for (float& sum : sums) sum = 0;
  if constexpr (IsFloatType(kType)) {
    for (size_t c = lane; c < w.cols; c += kWarp) {
      const float weight = FloatWeight<kType>(w, row * w.cols + c);
      for (int t = 0; t < kTokens; ++t)
        if (t < static_cast<int>(tile.tokens))
          sums[t] =
              fmaf(weight, tile.x[(tile.first + static_cast<size_t>(t)) * w.cols + c], sums[t]);
    }
  } else {
    for (size_t chunk = lane; chunk < w.cols / kChunk; chunk += kWarp) {
      Group groups[2];
      LoadChunk<kType>(w, row, chunk, groups);
      LAB_UNROLL
      for (int i = 0; i < 2; ++i) AddGroup<kType, kActs>(groups[i], tile, w.cols, sums);
    }
  }
  for (int t = 0; t < kTokens; ++t)
    if (kTokens == 1 || t < static_cast<int>(tile.tokens)) sums[t] = WarpSum(sums[t]);
}

/// Asks for the weights of a row, a line of 128 bytes for each lane of a warp.
template <BlockType kType>
__device__ void PrefetchRow(const WeightView& w, size_t row) {
  constexpr size_t kLine = 128;
  constexpr BlockFields kApart = FieldsOnDevice(kType), kWhole = {{{0, InfoOf(kType).bytes}}};
  const uint8_t* field = w.data;
  LAB_UNROLL
  for (const BlockField& f : (kApart.field[0].bytes ? kApart : kWhole).field) {
    const size_t bytes = w.cols / InfoOf(kType).elements * f.bytes;
    for (size_t i = threadIdx.x % kWarp * kLine; i < bytes; i += kWarp * kLine)
      PrefetchWeights(field + row * bytes + i);
    field += w.rows * bytes;
  }
}

/// Tokens that share one pass over the weights in a prefill.
constexpr int kTileTokens = 4;
constexpr unsigned kDotThreads = 128;  // a warp for each row

inline dim3 DotGrid(size_t rows, size_t tokens) {
  return {BlocksFor(rows, kDotThreads / kWarp), BlocksFor(tokens, kTileTokens)};
}
/// By block of the grid.
__device__ inline size_t RowOfWarp(unsigned block) {
  return (size_t{block} * kDotThreads + threadIdx.x) / kWarp;
}
__device__ inline size_t RowOfWarp() {
  return RowOfWarp(blockIdx.x);
}
/// The tokens of this block of the grid.
template <int kTokens>
__device__ TokenTile TileOfBlock(const float* x, const QuantizedView& xq, size_t tokens) {
  const size_t first = size_t{blockIdx.y} * kTokens, left = tokens - first;
  return {x, xq, first, left < kTokens ? left : kTokens};
}

/// f(tag of the block type, std::integral_constant<Acts>, std::integral_constant<int, tokens>), on
/// the host.
template <class F>
void WithDot(BlockType type, const QuantizedView& xq, size_t tokens, F&& f) {
  const auto with_tokens = [&](auto tag, auto acts) {
    if (tokens == 1)
      f(tag, acts, std::integral_constant<int, 1>());
    else
      f(tag, acts, std::integral_constant<int, kTileTokens>());
  };
  WithType(type, [&](auto tag) {
    if constexpr (IsFloatType(tag.kType)) {
      with_tokens(tag, std::integral_constant<Acts, Acts::f32>());
    } else {
      switch (ActsOf(xq)) {
        case Acts::f32:
          return with_tokens(tag, std::integral_constant<Acts, Acts::f32>());
        case Acts::q8:
          return with_tokens(tag, std::integral_constant<Acts, Acts::q8>());
        case Acts::q16:
          return with_tokens(tag, std::integral_constant<Acts, Acts::q16>());
      }
    }
  });
}

}  // namespace lab::LAB_CUDA_NAMESPACE
