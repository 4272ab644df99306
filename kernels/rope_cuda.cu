#include "kernels/elementwise.cuh"
#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"
#include "kernels/rope.cuh"

namespace lab::LAB_CUDA_NAMESPACE {

void LaunchRope(const RopeArgs<float>& a, cudaStream_t stream) {
  const RopePair pair = {a};
  LaunchElementwise(pair, pair.Pairs(), stream);
}
void RopeCuda(const RopeArgs<float>& a) {
  RunOnDevice(a, LaunchRope);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
