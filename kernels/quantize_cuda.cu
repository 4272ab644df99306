#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"
#include "kernels/quantize.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

constexpr unsigned kThreads = 128;

// A warp for each block of activations.
template <bool kTwoPlanes>
__global__ void QuantizeKernel(QuantizeArgs<float> a) {
  WaitForPrevious();
  const size_t block = (size_t{blockIdx.x} * kThreads + threadIdx.x) / kWarp;
  if (block < a.tokens * a.n / a.block) QuantizeBlock<kTwoPlanes>(a, block);
}

}  // namespace

void LaunchQuantize(const QuantizeArgs<float>& a, cudaStream_t stream) {
  const size_t threads = a.tokens * a.n / a.block * kWarp;
  if (threads == 0) return;
  Launch(a.lo ? QuantizeKernel<true> : QuantizeKernel<false>, BlocksFor(threads, kThreads),
         kThreads, 0, stream, a);
}
void QuantizeCuda(const QuantizeArgs<float>& a) {
  RunOnDevice(a, LaunchQuantize);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
