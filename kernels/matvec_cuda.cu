// Ops matvec and down_proj under every contract.
#include "kernels/dot.cuh"
#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"
#include "kernels/prefill.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

// Row `row` of w by a warp. `sum`: of a token alone, null pointers for none.
template <BlockType kType, Acts kActs, int kTokens>
__device__ void MatvecRow(const MatvecArgs<float>& a, const ResidualAddArgs<float>& sum,
                          size_t row) {
  if (row < a.w.rows) PrefetchRow<kType>(a.w, row);
  WaitForPrevious();
  if (row >= a.w.rows) return;  // the whole warp
  const TokenTile tile = TileOfBlock<kTokens>(a.x, a.xq, a.tokens);
  float sums[kTokens];
  DotRow<kType, kActs>(a.w, row, tile, sums);
  if (threadIdx.x % kWarp != 0) return;
  const float bias = a.bias ? a.bias[row] : 0;
  for (int t = 0; t < kTokens; ++t) {
    if (t >= static_cast<int>(tile.tokens)) break;
    const size_t at = (tile.first + static_cast<size_t>(t)) * a.y_stride + row;
    const float y = a.bias ? sums[t] + bias : sums[t];
    if (a.y_before_bias) a.y_before_bias[at] = sums[t];
    a.y[at] = y;
    if (kTokens == 1 && sum.y) sum.y[row] = sum.a[row] + y;
  }
}

template <BlockType kType, Acts kActs, int kTokens>
__global__ void MatvecKernel(MatvecArgs<float> a, ResidualAddArgs<float> sum) {
  MatvecRow<kType, kActs, kTokens>(a, sum, RowOfWarp());
}

// Matvecs of one token, one behind the other in the grid.
struct Projections {
  MatvecArgs<float> part[kMostProjections];
  unsigned blocks[kMostProjections];
};

template <Acts kActs>
__global__ void ProjectionsKernel(Projections p) {
  unsigned block = blockIdx.x;
  int part = 0;
  while (block >= p.blocks[part]) block -= p.blocks[part++];
  const MatvecArgs<float>& a = p.part[part];
  const size_t row = RowOfWarp(block);
  WithType(a.w.type, [&](auto tag) {
    if constexpr (!IsFloatType(tag.kType)) MatvecRow<tag.kType, kActs, 1>(a, {}, row);
  });
}

constexpr size_t kWarpRows = kHalves * kHalfRows, kBlockRows = kPrefillWarps * kWarpRows;

template <BlockType kType, Acts kActs, int kTiles>
__global__ void __launch_bounds__(kPrefillThreads, 2) MatvecPrefillKernel(MatvecArgs<float> a) {
  using Shape = PrefillShape<kType, kActs, kTiles>;
  WaitForPrevious();
  const size_t row = blockIdx.x * kBlockRows + threadIdx.x / kWarp * kWarpRows;
  const PrefillTile tile = {
      {a.w, a.w}, {row, row + kHalfRows}, a.xq, size_t{blockIdx.y} * Shape::kTokens, a.tokens};
  float y[kHalves][Shape::kTokenTiles][4];
  PrefillDots<Shape>(tile, y);
  LAB_UNROLL
  for (int i = 0; i < kHalves * Shape::kTokenTiles * 4; ++i) {
    const int half = i / 4 % kHalves, of_tokens = i / 4 / kHalves, c = i % 4;
    const size_t r = tile.Row(half, c), token = tile.Token(of_tokens, c);
    if (r >= a.w.rows || token >= a.tokens) continue;
    const float sum = y[half][of_tokens][c];
    const size_t at = token * a.y_stride + r;
    if (a.y_before_bias) a.y_before_bias[at] = sum;
    a.y[at] = a.bias ? sum + a.bias[r] : sum;
  }
}

bool LaunchedPrefill(const MatvecArgs<float>& a, cudaStream_t stream) {
  return WithPrefill(a.w.type, a.xq, a.tokens, [&](auto shape) {
    using Shape = decltype(shape);
    return LaunchPrefill<Shape>(MatvecPrefillKernel<Shape::kType, Shape::kActs, Shape::kTiles>,
                                a.w.rows, kBlockRows, a.tokens, a, stream);
  });
}

void LaunchFewTokens(const MatvecArgs<float>& a, const ResidualAddArgs<float>& sum,
                     cudaStream_t stream) {
  WithDot(a.w.type, a.xq, a.tokens, [&](auto tag, auto acts, auto tokens) {
    Launch(MatvecKernel<tag.kType, acts.value, tokens.value>, DotGrid(a.w.rows, a.tokens),
           kDotThreads, 0, stream, a, sum);
  });
}

}  // namespace

void LaunchMatvec(const MatvecArgs<float>& a, cudaStream_t stream) {
  if (a.tokens == 0 || a.w.rows == 0 || LaunchedPrefill(a, stream)) return;
  LaunchFewTokens(a, {}, stream);
}
void LaunchMatvecResidualAdd(const MatvecArgs<float>& a, const ResidualAddArgs<float>& sum,
                             cudaStream_t stream) {
  LaunchFewTokens(a, sum, stream);
}
void LaunchProjections(std::span<const MatvecArgs<float>> parts, cudaStream_t stream) {
  Projections p = {};
  unsigned blocks = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    p.part[i] = parts[i];
    p.blocks[i] = DotGrid(parts[i].w.rows, 1).x;
    blocks += p.blocks[i];
  }
  const auto launch = [&](auto kernel) { Launch(kernel, blocks, kDotThreads, 0, stream, p); };
  switch (ActsOf(parts[0].xq)) {
    case Acts::f32:
      return launch(ProjectionsKernel<Acts::f32>);
    case Acts::q8:
      return launch(ProjectionsKernel<Acts::q8>);
    case Acts::q16:
      return launch(ProjectionsKernel<Acts::q16>);
  }
}
void MatvecCuda(const MatvecArgs<float>& a) {
  RunOnDevice(a, LaunchMatvec);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
