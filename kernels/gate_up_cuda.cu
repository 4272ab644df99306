// Ops gate_up and gate_up_swiglu under every contract.
#include <vector>

#include "kernels/dot.cuh"
#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"
#include "kernels/prefill.cuh"
#include "kernels/silu.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

// Outputs that are null are not stored.
__device__ void Store(const GateUpSwigluArgs<float>& s, size_t at, float gate, float up) {
  const float silu = SiluOf(gate);
  if (s.gate_up.gate) s.gate_up.gate[at] = gate;
  if (s.gate_up.up) s.gate_up.up[at] = up;
  if (s.silu) s.silu[at] = silu;
  if (s.y) s.y[at] = silu * up;
}

// A warp has row r of both matrices.
template <BlockType kType, Acts kActs, int kTokens>
__global__ void GateUpKernel(GateUpSwigluArgs<float> s) {
  const GateUpArgs<float>& a = s.gate_up;
  const size_t row = RowOfWarp();
  if (row < a.w_gate.rows) {
    PrefetchRow<kType>(a.w_gate, row);
    PrefetchRow<kType>(a.w_up, row);
  }
  WaitForPrevious();
  if (row >= a.w_gate.rows) return;  // the whole warp
  const TokenTile tile = TileOfBlock<kTokens>(a.x, a.xq_gate, a.tokens);
  float gate[kTokens], up[kTokens];
  DotRow<kType, kActs>(a.w_gate, row, tile, gate);
  DotRow<kType, kActs>(a.w_up, row, tile, up);
  if (threadIdx.x % kWarp != 0) return;
  for (int t = 0; t < kTokens; ++t) {
    if (t >= static_cast<int>(tile.tokens)) break;
    Store(s, (tile.first + static_cast<size_t>(t)) * a.y_stride + row, gate[t], up[t]);
  }
}

constexpr size_t kBlockRows = kPrefillWarps * kHalfRows;

// One half of a warp has rows of w_gate, the other the same rows of w_up.
template <BlockType kType, Acts kActs, int kTiles>
__global__ void __launch_bounds__(kPrefillThreads, 2)
    GateUpPrefillKernel(GateUpSwigluArgs<float> s) {
  using Shape = PrefillShape<kType, kActs, kTiles>;
  const GateUpArgs<float>& a = s.gate_up;
  WaitForPrevious();
  const size_t row = blockIdx.x * kBlockRows + threadIdx.x / kWarp * kHalfRows;
  const PrefillTile tile = {
      {a.w_gate, a.w_up}, {row, row}, a.xq_gate, size_t{blockIdx.y} * Shape::kTokens, a.tokens};
  float y[kHalves][Shape::kTokenTiles][4];
  PrefillDots<Shape>(tile, y);
  LAB_UNROLL
  for (int i = 0; i < Shape::kTokenTiles * 4; ++i) {
    const int of_tokens = i / 4, c = i % 4;
    const size_t r = tile.Row(0, c), token = tile.Token(of_tokens, c);
    if (r < a.w_gate.rows && token < a.tokens)
      Store(s, token * a.y_stride + r, y[0][of_tokens][c], y[1][of_tokens][c]);
  }
}

bool LaunchedPrefill(const GateUpSwigluArgs<float>& s, cudaStream_t stream) {
  const GateUpArgs<float>& a = s.gate_up;
  return WithPrefill(a.w_gate.type, a.xq_gate, a.tokens, [&](auto shape) {
    using Shape = decltype(shape);
    return LaunchPrefill<Shape>(GateUpPrefillKernel<Shape::kType, Shape::kActs, Shape::kTiles>,
                                a.w_gate.rows, kBlockRows, a.tokens, s, stream);
  });
}

// Both matrices of one type.
void LaunchSideBySide(const GateUpSwigluArgs<float>& s, cudaStream_t stream) {
  const GateUpArgs<float>& a = s.gate_up;
  if (LaunchedPrefill(s, stream)) return;
  WithDot(a.w_gate.type, a.xq_gate, a.tokens, [&](auto tag, auto acts, auto tokens) {
    Launch(GateUpKernel<tag.kType, acts.value, tokens.value>, DotGrid(a.w_gate.rows, a.tokens),
           kDotThreads, 0, stream, s);
  });
}

bool SideBySide(const GateUpArgs<float>& a) {
  return a.w_gate.type == a.w_up.type;
}

}  // namespace

void LaunchGateUp(const GateUpArgs<float>& a, cudaStream_t stream) {
  if (a.tokens == 0 || a.Items() == 0) return;
  if (SideBySide(a)) return LaunchSideBySide({a, nullptr, nullptr}, stream);
  LaunchMatvec({a.w_gate, nullptr, a.x, a.xq_gate, a.gate, nullptr, a.tokens, a.y_stride}, stream);
  LaunchMatvec({a.w_up, nullptr, a.x, a.xq_up, a.up, nullptr, a.tokens, a.y_stride}, stream);
}

void LaunchGateUpSwiglu(const GateUpSwigluArgs<float>& s, cudaStream_t stream) {
  const GateUpArgs<float>& a = s.gate_up;
  if (a.tokens == 0 || s.Items() == 0) return;
  if (SideBySide(a)) return LaunchSideBySide(s, stream);
  LaunchGateUp(a, stream);
  for (size_t t = 0; t < a.tokens; ++t) {
    const size_t at = t * a.y_stride;
    LaunchSilu({a.gate + at, s.silu + at, s.Items()}, stream);
    LaunchSwiglu({s.silu + at, a.up + at, s.y + at, s.Items()}, stream);
  }
}

void GateUpCuda(const GateUpArgs<float>& a) {
  RunOnDevice(a, LaunchGateUp);
}

void GateUpSwigluCuda(const GateUpSwigluArgs<float>& a) {
  std::vector<float> steps;
  GateUpSwigluArgs<float> s = a;
  if (!a.silu && !SideBySide(a.gate_up)) {
    const size_t values = Strided(a.gate_up.tokens, a.gate_up.y_stride, a.Items());
    steps.resize(3 * values);
    s.gate_up.gate = steps.data();
    s.gate_up.up = steps.data() + values;
    s.silu = steps.data() + 2 * values;
  }
  RunOnDevice(s, LaunchGateUpSwiglu);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
