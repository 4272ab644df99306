#include "kernels/elementwise.cuh"
#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

// A thread for each pair.
struct RopePair {
  RopeArgs<float> a;
  __device__ void operator()(size_t pair) const {
    const size_t half = a.head_dim / 2, i = pair % half;
    const size_t head = pair / half % a.heads, token = pair / (half * a.heads);
    const size_t at = token * a.stride + head * a.head_dim + i;
    const float first = a.x[at], second = a.x[at + half];
    const float c = a.cos[token * half + i], s = a.sin[token * half + i];
    a.y[at] = first * c - second * s;
    a.y[at + half] = second * c + first * s;
  }
};

}  // namespace

void LaunchRope(const RopeArgs<float>& a, cudaStream_t stream) {
  LaunchElementwise(RopePair{a}, a.tokens * a.heads * (a.head_dim / 2), stream);
}
void RopeCuda(const RopeArgs<float>& a) {
  RunOnDevice(a, LaunchRope);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
