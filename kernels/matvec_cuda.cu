// Ops matvec and down_proj under every contract.
#include "kernels/dot.cuh"
#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

template <BlockType kType, Acts kActs, int kTokens>
__global__ void MatvecKernel(MatvecArgs<float> a) {
  const size_t row = RowOfWarp();
  if (row >= a.w.rows) return;  // the whole warp
  const TokenTile tile = TileOfBlock<kTokens>(a.x, a.xq, a.tokens);
  float sums[kTokens];
  DotRow<kType, kActs>(a.w, row, tile, sums);
  if (threadIdx.x % kWarp != 0) return;
  const float bias = a.bias ? a.bias[row] : 0;
  for (int t = 0; t < kTokens; ++t) {
    if (t >= static_cast<int>(tile.tokens)) break;
    const size_t at = (tile.first + static_cast<size_t>(t)) * a.y_stride + row;
    if (a.y_before_bias) a.y_before_bias[at] = sums[t];
    a.y[at] = a.bias ? sums[t] + bias : sums[t];
  }
}

}  // namespace

void LaunchMatvec(const MatvecArgs<float>& a, cudaStream_t stream) {
  if (a.tokens == 0 || a.w.rows == 0) return;
  WithDot(a.w.type, a.xq, a.tokens, [&](auto tag, auto acts, auto tokens) {
    Launch(MatvecKernel<tag.kType, acts.value, tokens.value>, DotGrid(a.w.rows, a.tokens),
           kDotThreads, 0, stream, a);
  });
}
void MatvecCuda(const MatvecArgs<float>& a) {
  RunOnDevice(a, LaunchMatvec);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
