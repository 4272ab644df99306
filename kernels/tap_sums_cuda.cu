// A block for each piece of a row. The order of the additions, whatever runs first: thread t has
// the values t, t + 256, ... of its piece and adds them rising; then lanes in pairs 16 apart, 8, 4,
// 2 and 1, then the 8 warps in pairs 4, 2 and 1 apart. Pieces are put together on the host.
#include <cmath>

#include "kernels/launchers.cuh"
#include "kernels/warp.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

constexpr unsigned kThreads = 256, kWarps = kThreads / kWarp;
constexpr unsigned kValues = TapSums::kPiece / kThreads;  // of a thread, kept in registers

// What is known of some values before their mean is. Counts of a piece fit into 16 bits each.
struct Partial {
  double sum, squares;
  float min, max;
  unsigned long long counts;   // zeros, NaN << 16, Inf << 32
  unsigned long long largest;  // magnitude << 32 | ~index: of equals the lower index is the larger

  __device__ void Add(float x, unsigned index) {
    constexpr unsigned kInf = 0x7f800000, kNaN = 0x7fffffff;
    unsigned magnitude = __float_as_uint(x) & kNaN;
    if (magnitude > kInf) magnitude = kNaN;  // above all others, and the first of them wins
    const double wide = x;
    sum += wide;
    squares = fma(wide, wide, squares);  // the product is exact
    min = x < min ? x : min;
    max = x > max ? x : max;
    counts += magnitude == 0      ? 1ull
              : magnitude == kNaN ? 1ull << 16
              : magnitude == kInf ? 1ull << 32
                                  : 0;
    const unsigned long long key = static_cast<unsigned long long>(magnitude) << 32 | ~index;
    largest = key > largest ? key : largest;
  }
};

__device__ Partial OfNothing() {
  return {0, 0, INFINITY, -INFINITY, 0, 0};
}

// Of the values of groups of `lanes` neighbours, the same bits in every lane.
__device__ Partial AcrossLanes(Partial p, int lanes) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
    const auto other = [distance](auto value) {
      return __shfl_xor_sync(kAllLanes, value, distance);
    };
    p.sum += other(p.sum);
    p.squares += other(p.squares);
    const float min = other(p.min), max = other(p.max);
    p.min = min < p.min ? min : p.min;
    p.max = max > p.max ? max : p.max;
    p.counts += other(p.counts);
    const unsigned long long largest = other(p.largest);
    p.largest = largest > p.largest ? largest : p.largest;
  }
  return p;
}

// Of the whole block, in every thread.
__device__ Partial AcrossBlock(Partial p) {
  LAB_SHARED(Partial, partials, kWarps);
  p = AcrossLanes(p, kWarp);
  if (threadIdx.x % kWarp == 0) partials[threadIdx.x / kWarp] = p;
  __syncthreads();
  return AcrossLanes(partials[threadIdx.x % kWarps], kWarps);
}
__device__ double SumAcrossBlock(double value) {
  LAB_SHARED(double, partials, kWarps);
  value = WarpSum(value);
  if (threadIdx.x % kWarp == 0) partials[threadIdx.x / kWarp] = value;
  __syncthreads();
  return WarpSum(partials[threadIdx.x % kWarps], kWarps);
}

__global__ void TapSumsKernel(TapSumsArgs a) {
  WaitForPrevious();
  const size_t piece = blockIdx.x, token = blockIdx.y, first = piece * TapSums::kPiece;
  const float* const values = a.values + token * a.stride + first;
  const size_t left = a.n - first;
  const unsigned n = static_cast<unsigned>(left < TapSums::kPiece ? left : TapSums::kPiece);

  float x[kValues];
  LAB_UNROLL
  for (unsigned k = 0; k < kValues; ++k) {
    const unsigned i = threadIdx.x + k * kThreads;
    x[k] = i < n ? values[i] : 0;
  }
  Partial p = OfNothing();
  LAB_UNROLL
  for (unsigned k = 0; k < kValues; ++k) {
    const unsigned i = threadIdx.x + k * kThreads;
    if (i < n) p.Add(x[k], i);
  }
  p = AcrossBlock(p);

  const double mean = p.sum / n;
  double deviations = 0;
  LAB_UNROLL
  for (unsigned k = 0; k < kValues; ++k) {
    const double deviation = x[k] - mean;
    if (threadIdx.x + k * kThreads < n) deviations = fma(deviation, deviation, deviations);
  }
  deviations = SumAcrossBlock(deviations);
  if (threadIdx.x > 0) return;
  const auto count = [&](int shift) { return static_cast<uint32_t>(p.counts >> shift & 0xffff); };
  a.sums[token * gridDim.x + piece] = {
      p.sum, p.squares, deviations, p.min,   p.max, first + ~static_cast<unsigned>(p.largest),
      n,     count(16), count(32),  count(0)};
}

}  // namespace

void LaunchTapSums(const TapSumsArgs& a, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(TapSums::Pieces(a.n)), static_cast<unsigned>(a.tokens));
  if (a.n > 0 && a.tokens > 0) Launch(TapSumsKernel, grid, kThreads, 0, stream, a);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
