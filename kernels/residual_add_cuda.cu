#include "kernels/elementwise.cuh"
#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

struct ResidualAddElement {
  ResidualAddArgs<float> a;
  __device__ void operator()(size_t i) const { a.y[i] = a.a[i] + a.b[i]; }
};

}  // namespace

void LaunchResidualAdd(const ResidualAddArgs<float>& a, cudaStream_t stream) {
  LaunchElementwise(ResidualAddElement{a}, a.n, stream);
}
void ResidualAddCuda(const ResidualAddArgs<float>& a) {
  RunOnDevice(a, LaunchResidualAdd);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
