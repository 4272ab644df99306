#pragma once
// What all 32 lanes of a warp do together.
#include "kernels/cuda.cuh"

namespace lab::LAB_CUDA_NAMESPACE {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffff;

/// The sum of the values of groups of `lanes` neighbours, the same bits in every lane: pairs half a
/// group apart first, neighbours last.
template <class T>
__device__ T WarpSum(T value, int lanes = kWarp) {
  for (int distance = lanes / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}
/// The largest value, in every lane; a NaN is none unless all are.
__device__ inline float WarpMax(float value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}
__device__ inline unsigned WarpMax(unsigned value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const unsigned other = __shfl_xor_sync(kAllLanes, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

}  // namespace lab::LAB_CUDA_NAMESPACE
