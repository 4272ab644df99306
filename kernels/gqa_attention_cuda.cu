// One pass over the positions with a running softmax (Milakov, Gimelshein 2018), all in float32:
// keys with bias reach 354 in this family, and their scores overflow half floats.
#include <cfloat>

#include "kernels/blocks.cuh"
#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"
#include "kernels/warp.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

constexpr unsigned kWarps = 8;

__device__ float Value(float x) {
  return x;
}
__device__ float Value(uint16_t x) {
  return HalfValue(x);
}

// What one warp knows of the positions it has seen: the largest score, and relative to it the sum
// of the weights and the weighted sum of V. A lane has columns lane, lane + 32, ...
template <int kColumns>
struct Running {
  float largest = -FLT_MAX, sum = 0, y[kColumns] = {};

  __device__ void Add(float score, const float (&v)[kColumns]) {
    // A NaN may escape fmaxf, but not expf.
    const float before = largest;
    largest = fmaxf(largest, score);
    const float keep = expf(before - largest), p = expf(score - largest);
    sum = fmaf(sum, keep, p);
    for (int i = 0; i < kColumns; ++i) y[i] = fmaf(p, v[i], y[i] * keep);
  }
};

// A block for each head and token; warp w takes positions w, w + kWarps, ..., which depends on the
// position alone, so prefill and decode agree bit for bit.
template <int kColumns, class Kv>
__global__ void GqaAttentionKernel(GqaAttentionArgs<float> a, const Kv* k, const Kv* v) {
  LAB_SHARED(float, warp_largest, kWarps);
  LAB_SHARED(float, warp_sum, kWarps);
  LAB_SHARED(float, warp_y, kWarps* kColumns* kWarp);
  const size_t head = blockIdx.x, token = blockIdx.y;
  const size_t first = a.first_position_at ? *a.first_position_at : a.first_position;
  const size_t seen = first + token + 1;
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const size_t kv_head = (a.first_head + head) / a.group;
  const float* const q = a.q + token * a.q_stride + head * a.head_dim;
  const float root = sqrtf(static_cast<float>(a.head_dim));

  float query[kColumns];
  for (int i = 0; i < kColumns; ++i) {
    const unsigned c = lane + i * kWarp;
    query[i] = c < a.head_dim ? q[c] : 0;
  }
  Running<kColumns> running;
  for (size_t j = warp; j < seen; j += kWarps) {
    const size_t k_at = a.KeyOffset(kv_head, j, 0), v_at = a.ValueOffset(kv_head, j, 0);
    float dot = 0, value[kColumns];
    for (int i = 0; i < kColumns; ++i) {
      const unsigned c = lane + i * kWarp;
      const bool inside = c < a.head_dim;
      dot = fmaf(query[i], inside ? Value(k[k_at + c * a.key_block]) : 0.0f, dot);
      value[i] = inside ? Value(v[v_at + c]) : 0;
    }
    running.Add(WarpSum(dot) / root, value);
  }
  if (lane == 0) {
    warp_largest[warp] = running.largest;
    warp_sum[warp] = running.sum;
  }
  for (int i = 0; i < kColumns; ++i) warp_y[(warp * kColumns + i) * kWarp + lane] = running.y[i];
  __syncthreads();

  float largest = -FLT_MAX, sum = 0;
  for (unsigned w = 0; w < kWarps; ++w) largest = fmaxf(largest, warp_largest[w]);
  for (unsigned w = 0; w < kWarps; ++w)
    sum = fmaf(warp_sum[w], expf(warp_largest[w] - largest), sum);
  for (unsigned c = threadIdx.x; c < a.head_dim; c += kWarps * kWarp) {
    float y = 0;
    for (unsigned w = 0; w < kWarps; ++w)
      y = fmaf(warp_y[w * kColumns * kWarp + c], expf(warp_largest[w] - largest), y);
    a.y[token * a.y_stride + head * a.head_dim + c] = y / sum;
  }
}

template <int kColumns>
void LaunchColumns(const GqaAttentionArgs<float>& a, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(a.heads), static_cast<unsigned>(a.tokens));
  if (a.k16)
    Launch(GqaAttentionKernel<kColumns, uint16_t>, grid, kWarps * kWarp, 0, stream, a, a.k16,
           a.v16);
  else
    Launch(GqaAttentionKernel<kColumns, float>, grid, kWarps * kWarp, 0, stream, a, a.k, a.v);
}

}  // namespace

void LaunchGqaAttention(const GqaAttentionArgs<float>& a, cudaStream_t stream) {
  if (a.tokens == 0 || a.heads == 0) return;
  if (a.head_dim <= 64) return LaunchColumns<2>(a, stream);
  if (a.head_dim <= 128) return LaunchColumns<4>(a, stream);
  if (a.head_dim <= 256) return LaunchColumns<8>(a, stream);
  ThrowDeviceError("gqa_attention on a device",
                   "head_dim is " + std::to_string(a.head_dim) + ", and at most 256 is possible",
                   true);
}
void GqaAttentionCuda(const GqaAttentionArgs<float>& a) {
  RunOnDevice(a, LaunchGqaAttention);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
