#pragma once
#include "kernels/quantize.h"
#include "kernels/warp.cuh"

namespace lab::LAB_CUDA_NAMESPACE {

/// The sum over the 16 lanes around this one.
__device__ inline int HalfWarpSum(int value) {
  for (int distance = 8; distance > 0; distance /= 2)
    value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

/// Op quantize for block `block` of all tokens' activations, by a warp. Magnitudes are compared as
/// bits: those of NaN are above those of infinity, and they above all finite ones.
template <bool kTwoPlanes>
__device__ void QuantizeBlock(const QuantizeArgs<float>& a, size_t block) {
  constexpr float kLargest = kTwoPlanes ? 32512 : 127;
  constexpr unsigned kInfinity = 0x7f800000;
  const unsigned lane = threadIdx.x % kWarp;
  const size_t first = block * a.block;
  unsigned bits = 0;
  for (size_t i = lane; i < a.block; i += kWarp) {
    const unsigned magnitude = __float_as_uint(fabsf(a.x[first + i]));
    bits = magnitude > bits ? magnitude : bits;
  }
  bits = WarpMax(bits);
  const float amax = __uint_as_float(bits), r = kLargest / amax;
  const bool finite = bits < kInfinity, zeros = !finite || __float_as_uint(r) >= kInfinity;
  if (lane == 0)
    a.scale[block] = !finite ? __uint_as_float(0x7fc00000) : zeros ? 0.0f : amax / kLargest;
  for (size_t base = 0; base < a.block; base += kWarp) {
    const size_t at = first + base + lane;
    const bool inside = base + lane < a.block;
    const int q = zeros || !inside ? 0 : __float2int_rn(a.x[at] * r);
    const int sum = HalfWarpSum(q);
    if (!inside) continue;
    const int high = kTwoPlanes ? (q + 128) >> 8 : q;  // rounds down, so that lo is in [-128, 127]
    a.hi[at] = static_cast<signed char>(high);
    if (kTwoPlanes) a.lo[at] = static_cast<signed char>(q - 256 * high);
    if (lane % 16 == 0) a.sums[at / 16] = sum;
  }
}

}  // namespace lab::LAB_CUDA_NAMESPACE
