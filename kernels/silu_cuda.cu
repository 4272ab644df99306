#include "kernels/elementwise.cuh"
#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"
#include "kernels/silu.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

struct SiluElement {
  SiluArgs<float> a;
  __device__ void operator()(size_t i) const { a.y[i] = SiluOf(a.x[i]); }
};

}  // namespace

void LaunchSilu(const SiluArgs<float>& a, cudaStream_t stream) {
  LaunchElementwise(SiluElement{a}, a.n, stream);
}
void SiluCuda(const SiluArgs<float>& a) {
  RunOnDevice(a, LaunchSilu);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
