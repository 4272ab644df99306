#pragma once
#include "kernels/cuda.cuh"

namespace lab::LAB_CUDA_NAMESPACE {

/// f(i) for all i < n.
template <class F>
__global__ void ElementwiseKernel(F f, size_t n) {
  WaitForPrevious();
  const size_t i = size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) f(i);
}

template <class F>
void LaunchElementwise(const F& f, size_t n, cudaStream_t stream) {
  constexpr unsigned kThreads = 256;
  if (n > 0) Launch(ElementwiseKernel<F>, BlocksFor(n, kThreads), kThreads, 0, stream, f, n);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
