// One pass over the positions with a running softmax (Milakov, Gimelshein 2018), all in float32:
// keys with bias reach 354 in this family, and their scores overflow half floats.
//
// A block has the query heads of one token that share a KV head, up to eight of them, so that keys
// and values are read once for all. It takes tiles of 32 positions, in two steps:
//   scores   a lane has a position and a warp an eighth of the channels, for every query; then warp
//            q adds up the eight parts for query q and does its softmax
//   y        a thread has a channel and, where heads are short, a part of the tile's positions
// Spans of 128 positions are summed up one by one and merged in their order. A token alone has a
// block for each span, and what they come to is merged by a second kernel: the bits are the same.
#include <cfloat>

#include "kernels/blocks.cuh"
#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"
#include "kernels/warp.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

using Args = GqaAttentionArgs<float>;

constexpr unsigned kThreads = AttentionSpans::kThreads, kWarps = kThreads / kWarp;
constexpr unsigned kQueries = kWarps;  // warp q does the softmax of query q
constexpr unsigned kTile = kWarp;      // positions: a lane has one

/// Heads of up to 32 * kColumns channels.
template <int kColumns>
struct Shape {
  static constexpr unsigned kHeadDim = kColumns * kWarp;
  static constexpr unsigned kChannels = kHeadDim / kWarps;    // of a warp, of the keys
  static constexpr unsigned kParts = kThreads / kHeadDim;     // of a tile, of the values
  static constexpr unsigned kPartPositions = kTile / kParts;  // of a thread
  static constexpr unsigned kQueryVectors = kHeadDim / 4;     // of a query
};

__device__ float Value(float x) {
  return x;
}
__device__ float Value(uint16_t x) {
  return HalfValue(x);
}

/// What a query knows of some positions: the largest score, and relative to it the sum of weights.
struct Softmax {
  float largest = -FLT_MAX, sum = 0;

  /// Goes on with other positions. By what the weighted sums of V of both are to be multiplied
  /// before they are added: those so far, and those of the others.
  __device__ float2 Merge(const Softmax& others) {
    // A NaN may escape fmaxf, but not expf.
    const float before = largest;
    largest = fmaxf(before, others.largest);
    const float keep = expf(before - largest), take = expf(others.largest - largest);
    sum = fmaf(sum, keep, others.sum * take);
    return make_float2(keep, take);
  }
};

__device__ float Merged(float y, float others, float2 factors) {
  return fmaf(y, factors.x, others * factors.y);
}

/// The queries of a block: heads of one token that read KV head kv_head.
struct Queries {
  size_t token, kv_head, first, end;  // heads, counted as a.q is
  size_t seen;                        // positions

  __device__ bool Has(unsigned q) const { return first + q < end; }
};

__host__ __device__ size_t BlocksOfKvHead(const Args& a) {
  return (a.group + kQueries - 1) / kQueries;
}

__device__ size_t PositionsSeen(const Args& a, size_t token) {
  return (a.first_position_at ? *a.first_position_at : a.first_position) + token + 1;
}

// A slice of heads may begin or end within those of a block, or leave it none.
__device__ Queries QueriesOfBlock(const Args& a) {
  const size_t kv_head = a.first_head / a.group + blockIdx.x / BlocksOfKvHead(a);
  const size_t begin = kv_head * a.group + blockIdx.x % BlocksOfKvHead(a) * kQueries;
  const size_t end =
      AtMost(AtMost(begin + kQueries, (kv_head + 1) * a.group), a.first_head + a.heads);
  const size_t first = AtLeast(begin, a.first_head);
  return {blockIdx.y, kv_head, first - a.first_head, AtLeast(end, first) - a.first_head,
          PositionsSeen(a, blockIdx.y)};
}

struct Shared {
  float4* query;  // [kQueries, kHeadDim / 4], 0 where there is none
  float* scores;  // [kWarps, kQueries, kTile], parts of a sum; in the end [kQueries, kThreads] of y
  float* weights;   // [kQueries, kTile]
  float* keep;      // [kQueries], what a tile leaves of the sums before it
  float2* factors;  // [kQueries], of a merge of spans
  float* sum;       // [kQueries], of all weights, in the end
};

template <int kColumns>
__device__ void StoreQueries(const Args& a, const Queries& block, const Shared& shared) {
  constexpr unsigned kHeadDim = Shape<kColumns>::kHeadDim;
  auto* const query = reinterpret_cast<float*>(shared.query);
  for (unsigned i = threadIdx.x; i < kQueries * kHeadDim; i += kThreads) {
    const unsigned q = i / kHeadDim, c = i % kHeadDim;
    const bool inside = block.Has(q) && c < a.head_dim;
    query[i] = inside ? a.q[block.token * a.q_stride + (block.first + q) * a.head_dim + c] : 0.0f;
  }
}

// This warp's part of the scores of this lane's position, for every query.
template <int kColumns>
__device__ void StoreScores(const float (&keys)[Shape<kColumns>::kChannels], const Shared& shared) {
  using S = Shape<kColumns>;
  const unsigned warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  LAB_UNROLL
  for (unsigned q = 0; q < kQueries; ++q) {
    const float4* const query = shared.query + q * S::kQueryVectors + warp * S::kChannels / 4;
    float dot = 0;
    LAB_UNROLL
    for (unsigned i = 0; i < S::kChannels; i += 4) {
      const float4 x = query[i / 4];
      dot = fmaf(x.x, keys[i], dot);
      dot = fmaf(x.y, keys[i + 1], dot);
      dot = fmaf(x.z, keys[i + 2], dot);
      dot = fmaf(x.w, keys[i + 3], dot);
    }
    shared.scores[(warp * kQueries + q) * kTile + lane] = dot;
  }
}

// Query `warp`: the scores of a tile are added up and become weights. A running softmax in every
// lane of the warp.
__device__ void StoreWeights(bool inside, float root, const Shared& shared, Softmax& softmax) {
  const unsigned warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  float score = 0;
  LAB_UNROLL
  for (unsigned w = 0; w < kWarps; ++w)
    score += shared.scores[(w * kQueries + warp) * kTile + lane];
  score = inside ? score / root : -FLT_MAX;
  const float before = softmax.largest, largest = fmaxf(before, WarpMax(score));
  const float weight = inside ? expf(score - largest) : 0.0f, keep = expf(before - largest);
  softmax = {largest, fmaf(softmax.sum, keep, WarpSum(weight))};
  shared.weights[warp * kTile + lane] = weight;
  if (lane == 0) shared.keep[warp] = keep;
}

template <int kColumns>
__device__ void AddValues(const float (&values)[Shape<kColumns>::kPartPositions],
                          const Shared& shared, float (&y)[kQueries]) {
  using S = Shape<kColumns>;
  const unsigned part = threadIdx.x / S::kHeadDim;
  LAB_UNROLL
  for (unsigned q = 0; q < kQueries; ++q) {
    const auto* const weights =
        reinterpret_cast<const float4*>(shared.weights + q * kTile + part * S::kPartPositions);
    y[q] *= shared.keep[q];
    LAB_UNROLL
    for (unsigned i = 0; i < S::kPartPositions; i += 4) {
      const float4 w = weights[i / 4];
      y[q] = fmaf(w.x, values[i], y[q]);
      y[q] = fmaf(w.y, values[i + 1], y[q]);
      y[q] = fmaf(w.z, values[i + 2], y[q]);
      y[q] = fmaf(w.w, values[i + 3], y[q]);
    }
  }
}

// y[q] of the positions of a span; returns what warp q knows of query q. What lies behind the
// positions seen is not read, as it may be NaN.
template <int kColumns, class Kv>
__device__ Softmax SumSpan(const Args& a, const Kv* k, const Kv* v, const Queries& block,
                           size_t span, const Shared& shared, float (&y)[kQueries]) {
  using S = Shape<kColumns>;
  const unsigned warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const unsigned first_channel = warp * S::kChannels, channel = threadIdx.x % S::kHeadDim;
  const unsigned first_of_part = threadIdx.x / S::kHeadDim * S::kPartPositions;
  // Times 32, far below 2^32. Pointers that step, or 64 bits, spill on some of sm_75 to sm_120.
  const auto key_block = static_cast<unsigned>(a.key_block);
  const auto kv_stride = static_cast<unsigned>(a.kv_stride);
  const float root = sqrtf(static_cast<float>(a.head_dim));
  Softmax softmax;
  for (float& part : y) part = 0;
  const size_t begin = span * AttentionSpans::kPositions;
  for (size_t tile = begin; tile < begin + AttentionSpans::kPositions && tile < block.seen;
       tile += kTile) {
    const bool inside = tile + lane < block.seen;
    const Kv* key = k + a.KeyOffset(block.kv_head, tile + lane, first_channel);
    const Kv* value = v + a.ValueOffset(block.kv_head, tile + first_of_part, channel);
    float keys[S::kChannels], values[S::kPartPositions];
    LAB_UNROLL
    for (unsigned i = 0; i < S::kChannels; ++i)
      keys[i] = inside && first_channel + i < a.head_dim ? Value(key[i * key_block]) : 0.0f;
    LAB_UNROLL
    for (unsigned i = 0; i < S::kPartPositions; ++i)
      values[i] = tile + first_of_part + i < block.seen && channel < a.head_dim
                      ? Value(value[i * kv_stride])
                      : 0.0f;
    StoreScores<kColumns>(keys, shared);
    __syncthreads();
    StoreWeights(inside, root, shared, softmax);
    __syncthreads();
    AddValues<kColumns>(values, shared, y);
  }
  return softmax;
}

// y / sum of one head, from the parts that threads have of it in `parts`.
template <int kColumns>
__device__ void WriteHead(const Args& a, size_t token, size_t head, float sum, const float* parts) {
  using S = Shape<kColumns>;
  if (threadIdx.x >= a.head_dim) return;
  float y = 0;
  LAB_UNROLL
  for (unsigned part = 0; part < S::kParts; ++part) y += parts[part * S::kHeadDim + threadIdx.x];
  a.y[token * a.y_stride + head * a.head_dim + threadIdx.x] = y / sum;
}

// The block's own span, into scratch.
template <int kColumns, class Kv>
__device__ void StoreSpan(const Args& a, const Kv* k, const Kv* v, const Queries& block,
                          const Shared& shared) {
  const auto scratch_of = [&](unsigned q) {
    return a.scratch + AttentionSpans::At(block.first + q, blockIdx.z, gridDim.z);
  };
  float y[kQueries];
  const Softmax softmax = SumSpan<kColumns>(a, k, v, block, blockIdx.z, shared, y);
  LAB_UNROLL
  for (unsigned q = 0; q < kQueries; ++q)
    if (block.Has(q)) scratch_of(q)[threadIdx.x] = y[q];
  const unsigned warp = threadIdx.x / kWarp;
  if (threadIdx.x % kWarp != 0 || !block.Has(warp)) return;
  scratch_of(warp)[kThreads] = softmax.largest;
  scratch_of(warp)[kThreads + 1] = softmax.sum;
}

template <int kColumns, class Kv>
__device__ void AttendToAllSpans(const Args& a, const Kv* k, const Kv* v, const Queries& block,
                                 const Shared& shared) {
  const unsigned warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  Softmax all;
  float y_all[kQueries] = {};
  for (size_t span = 0; span < AttentionSpans::Count(block.seen); ++span) {
    float y[kQueries];
    const float2 factors = all.Merge(SumSpan<kColumns>(a, k, v, block, span, shared, y));
    if (lane == 0) shared.factors[warp] = factors;
    __syncthreads();
    LAB_UNROLL
    for (unsigned q = 0; q < kQueries; ++q) y_all[q] = Merged(y_all[q], y[q], shared.factors[q]);
  }
  if (lane == 0) shared.sum[warp] = all.sum;
  LAB_UNROLL
  for (unsigned q = 0; q < kQueries; ++q) shared.scores[q * kThreads + threadIdx.x] = y_all[q];
  __syncthreads();
  LAB_UNROLL
  for (unsigned q = 0; q < kQueries; ++q)
    if (block.Has(q))
      WriteHead<kColumns>(a, block.token, block.first + q, shared.sum[q],
                          shared.scores + q * kThreads);
}

template <int kColumns, class Kv>
__global__ void __launch_bounds__(kThreads, kColumns == 8 ? 1 : 2)
    GqaAttentionKernel(Args a, const Kv* k, const Kv* v) {
  LAB_SHARED(float4, query, kQueries * Shape<kColumns>::kQueryVectors);
  LAB_SHARED(float, scores, kWarps* kQueries* kTile);
  LAB_SHARED(float4, weights, kQueries * kTile / 4);
  LAB_SHARED(float, keep, kQueries);
  LAB_SHARED(float2, factors, kQueries);
  LAB_SHARED(float, sum, kQueries);
  const Shared shared = {query, scores, reinterpret_cast<float*>(weights), keep, factors, sum};
  WaitForPrevious();
  const Queries block = QueriesOfBlock(a);
  const bool one_span = gridDim.z > 1;
  if (one_span && blockIdx.z >= AttentionSpans::Count(block.seen)) return;
  StoreQueries<kColumns>(a, block, shared);
  __syncthreads();
  if (one_span)
    StoreSpan<kColumns>(a, k, v, block, shared);
  else
    AttendToAllSpans<kColumns>(a, k, v, block, shared);
}

// A block for each head of the token.
template <int kColumns>
__global__ void __launch_bounds__(kThreads) MergeSpansKernel(Args a, size_t most_spans) {
  LAB_SHARED(float, parts, kThreads);
  WaitForPrevious();
  const size_t spans = AttentionSpans::Count(PositionsSeen(a, 0));
  const float* from = a.scratch + AttentionSpans::At(blockIdx.x, 0, most_spans);
  Softmax all;
  float y = 0;
  for (size_t span = 0; span < spans; ++span, from += AttentionSpans::kValues)
    y = Merged(y, from[threadIdx.x], all.Merge({from[kThreads], from[kThreads + 1]}));
  parts[threadIdx.x] = y;
  __syncthreads();
  WriteHead<kColumns>(a, 0, blockIdx.x, all.sum, parts);
}

template <int kColumns, class Kv>
void LaunchOn(const Args& a, const Kv* k, const Kv* v, cudaStream_t stream) {
  const size_t kv_heads = a.kv_heads() - a.first_head / a.group;
  dim3 grid(static_cast<unsigned>(kv_heads * BlocksOfKvHead(a)), static_cast<unsigned>(a.tokens));
  const bool apart = a.ScratchValues() > 0;  // then there are two spans or more
  if (apart) grid.z = static_cast<unsigned>(a.Spans());
  Launch(GqaAttentionKernel<kColumns, Kv>, grid, kThreads, 0, stream, a, k, v);
  if (apart)
    Launch(MergeSpansKernel<kColumns>, static_cast<unsigned>(a.heads), kThreads, 0, stream, a,
           a.Spans());
}

template <int kColumns>
void LaunchColumns(const Args& a, cudaStream_t stream) {
  if (a.k16)
    LaunchOn<kColumns>(a, a.k16, a.v16, stream);
  else
    LaunchOn<kColumns>(a, a.k, a.v, stream);
}

}  // namespace

void LaunchGqaAttention(const Args& a, cudaStream_t stream) {
  if (a.tokens == 0 || a.heads == 0) return;
  if (a.head_dim <= 64) return LaunchColumns<2>(a, stream);
  if (a.head_dim <= 128) return LaunchColumns<4>(a, stream);
  if (a.head_dim <= 256) return LaunchColumns<8>(a, stream);
  ThrowDeviceError("gqa_attention on a device",
                   "head_dim is " + std::to_string(a.head_dim) + ", and at most 256 is possible",
                   true);
}
void GqaAttentionCuda(const Args& a) {
  RunOnDevice(a, LaunchGqaAttention);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
