#pragma once
#include "kernels/blocks.cuh"

namespace lab::LAB_CUDA_NAMESPACE {

/// y[r, c] = weight (rows ? rows[r] : r, c) for n rows: one thread for 32 columns.
template <BlockType kType>
__global__ void UnpackRowsKernel(WeightView w, const int32_t* rows, float* y, size_t n) {
  WaitForPrevious();
  const size_t chunks = (w.cols + kChunk - 1) / kChunk;
  const size_t i = size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= n * chunks) return;
  const size_t r = i / chunks, chunk = i % chunks;
  const size_t row = rows ? static_cast<size_t>(rows[r]) : r;
  float* const to = y + r * w.cols;
  if constexpr (IsFloatType(kType)) {
    for (size_t c = chunk * kChunk; c < w.cols && c < (chunk + 1) * kChunk; ++c)
      to[c] = FloatWeight<kType>(w, row * w.cols + c);
  } else {
    Group groups[2];
    LoadChunk<kType>(w, row, chunk, groups);
    for (const Group& g : groups)
      for (size_t v = 0; v < kGroup; v += 4)
        *reinterpret_cast<float4*>(to + g.column + v) =
            make_float4(WeightOf<kType>(g, v), WeightOf<kType>(g, v + 1), WeightOf<kType>(g, v + 2),
                        WeightOf<kType>(g, v + 3));
  }
}

template <BlockType kType>
void LaunchUnpackRows(const WeightView& w, const int32_t* rows, float* y, size_t n,
                      cudaStream_t stream) {
  constexpr unsigned kThreads = 128;
  const size_t threads = n * ((w.cols + kChunk - 1) / kChunk);
  if (threads > 0)
    Launch(UnpackRowsKernel<kType>, BlocksFor(threads, kThreads), kThreads, 0, stream, w, rows, y,
           n);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
