#include "kernels/elementwise.cuh"
#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

struct SwigluElement {
  SwigluArgs<float> a;
  __device__ void operator()(size_t i) const { a.y[i] = a.silu[i] * a.up[i]; }
};

}  // namespace

void LaunchSwiglu(const SwigluArgs<float>& a, cudaStream_t stream) {
  LaunchElementwise(SwigluElement{a}, a.n, stream);
}
void SwigluCuda(const SwigluArgs<float>& a) {
  RunOnDevice(a, LaunchSwiglu);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
