#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"
#include "kernels/quantize.cuh"
#include "kernels/rms_norm.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

__global__ void RmsNormKernel(RmsNormArgs<float> a) {
  WaitForPrevious();
  NormToken(a);
}

template <bool kTwoPlanes>
__global__ void RmsNormQuantizeKernel(RmsNormArgs<float> norm, QuantizeArgs<float> integers) {
  WaitForPrevious();
  NormToken(norm);
  __syncthreads();  // before other threads' values are read
  const size_t blocks = integers.n / integers.block;
  for (size_t i = threadIdx.x / kWarp; i < blocks; i += kNormThreads / kWarp)
    QuantizeBlock<kTwoPlanes>(integers, blockIdx.x * blocks + i);
}

}  // namespace

void LaunchRmsNorm(const RmsNormArgs<float>& a, cudaStream_t stream) {
  if (a.tokens > 0)
    Launch(RmsNormKernel, static_cast<unsigned>(a.tokens), kNormThreads, 0, stream, a);
}
void LaunchRmsNormQuantize(const RmsNormArgs<float>& norm, const QuantizeArgs<float>& integers,
                           cudaStream_t stream) {
  if (norm.tokens > 0)
    Launch(integers.lo ? RmsNormQuantizeKernel<true> : RmsNormQuantizeKernel<false>,
           static_cast<unsigned>(norm.tokens), kNormThreads, 0, stream, norm, integers);
}
void RmsNormCuda(const RmsNormArgs<float>& a) {
  RunOnDevice(a, LaunchRmsNorm);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
