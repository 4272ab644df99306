#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"
#include "kernels/unpack.cuh"

namespace lab::LAB_CUDA_NAMESPACE {

void LaunchQ4kDequant(const DequantArgs<float>& a, cudaStream_t stream) {
  LaunchUnpackRows<BlockType::Q4_K>(a.w, nullptr, a.y, a.w.rows, stream);
}
void Q4kDequantCuda(const DequantArgs<float>& a) {
  RunOnDevice(a, LaunchQ4kDequant);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
