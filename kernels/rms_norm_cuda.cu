#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"
#include "kernels/warp.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

constexpr unsigned kThreads = 256;

// A block for each token.
__global__ void RmsNormKernel(RmsNormArgs<float> a) {
  WaitForPrevious();
  LAB_SHARED(float, partial, kThreads / kWarp);
  const float* const x = a.x + size_t{blockIdx.x} * a.n;
  float* const y = a.y + size_t{blockIdx.x} * a.n;
  float squares = 0;
  for (size_t i = threadIdx.x; i < a.n; i += kThreads) squares = fmaf(x[i], x[i], squares);
  squares = WarpSum(squares);
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = squares;
  __syncthreads();
  const unsigned lane = threadIdx.x % kWarp;
  squares = WarpSum(lane < kThreads / kWarp ? partial[lane] : 0.0f);
  const float rms = sqrtf(squares / static_cast<float>(a.n) + a.eps);
  for (size_t i = threadIdx.x; i < a.n; i += kThreads) y[i] = x[i] / rms * a.weight[i];
}

}  // namespace

void LaunchRmsNorm(const RmsNormArgs<float>& a, cudaStream_t stream) {
  if (a.tokens > 0) Launch(RmsNormKernel, static_cast<unsigned>(a.tokens), kThreads, 0, stream, a);
}
void RmsNormCuda(const RmsNormArgs<float>& a) {
  RunOnDevice(a, LaunchRmsNorm);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
