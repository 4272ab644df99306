#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"
#include "kernels/unpack.cuh"

namespace lab::LAB_CUDA_NAMESPACE {

void LaunchEmbed(const EmbedArgs<float>& a, cudaStream_t stream) {
  WithType(a.table.type,
           [&](auto tag) { LaunchUnpackRows<tag.kType>(a.table, a.ids, a.y, a.tokens, stream); });
}
void EmbedCuda(const EmbedArgs<float>& a) {
  RunOnDevice(a, LaunchEmbed);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
