#pragma once
#include "kernels/cuda.cuh"

namespace lab::LAB_CUDA_NAMESPACE {

/// x / (1 + exp(-x)); negative x by way of exp(x), because exp(-x) overflows where the result is
/// still a normal number.
__device__ inline float SiluOf(float x) {
  const float e = expf(-fabsf(x));
  return (x < 0 ? x * e : x) / (1 + e);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
