#pragma once
#include "kernels/rms_norm.h"
#include "kernels/warp.cuh"

namespace lab::LAB_CUDA_NAMESPACE {

constexpr unsigned kNormThreads = 256;

/// Op rms_norm for the token of the block's number, by a block of kNormThreads.
__device__ inline void NormToken(const RmsNormArgs<float>& a) {
  LAB_SHARED(float, partial, kNormThreads / kWarp);
  const float* const x = a.x + size_t{blockIdx.x} * a.n;
  float* const y = a.y + size_t{blockIdx.x} * a.n;
  float squares = 0;
  for (size_t i = threadIdx.x; i < a.n; i += kNormThreads) squares = fmaf(x[i], x[i], squares);
  squares = WarpSum(squares);
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = squares;
  __syncthreads();
  const unsigned lane = threadIdx.x % kWarp;
  squares = WarpSum(lane < kNormThreads / kWarp ? partial[lane] : 0.0f);
  const float rms = sqrtf(squares / static_cast<float>(a.n) + a.eps);
  for (size_t i = threadIdx.x; i < a.n; i += kNormThreads) y[i] = x[i] / rms * a.weight[i];
}

}  // namespace lab::LAB_CUDA_NAMESPACE
