#pragma once
// Products of the activations of many tokens with K-quants on the tensor cores, for contracts q8
// and q16. Per block of 256 columns everything is an exact integer,
//   P = sum over groups of scale * (sum of weight codes * activations),  S = sum of minimum * sum,
// and per output the blocks are added in their order, in one chain:
//   y = fma(scale of the activations, fma(d, P, -(dmin S)), y)
// So the bits do not depend on how many tokens there are; those of kernels/dot.cuh are others.
#include "kernels/dot.cuh"
#include "kernels/fragments.cuh"

namespace lab::LAB_CUDA_NAMESPACE {

constexpr unsigned kPrefillWarps = 4, kPrefillThreads = kPrefillWarps * kWarp;
constexpr size_t kBlockCols = 256;
/// A warp has two tiles of 16 rows, its halves, with all columns of the block's B.
constexpr int kHalves = 2;
constexpr size_t kHalfRows = 16;

/// B of a block of the grid: kTiles times 8 columns, which under q8 are tokens; under q16 the first
/// half are the upper planes of tokens, the second half their lower planes.
template <BlockType kTypeOfWeights, Acts kActivations, int kTilesOfB>
struct PrefillShape {
  static constexpr BlockType kType = kTypeOfWeights;
  static constexpr Acts kActs = kActivations;
  static constexpr int kTiles = kTilesOfB;
  static constexpr int kTokenTiles = kActs == Acts::q16 ? kTiles / 2 : kTiles;
  static constexpr unsigned kTokens = 8 * kTokenTiles;

  // A stage in shared memory: blocks of weights [warp, half, row], integers [column of B, 256],
  // sums [token, 16], scales [token].
  static constexpr size_t kStride = KQuant<kType>::kStride;
  static constexpr size_t kWarpBytes = kHalves * kHalfRows * kStride;
  /// So that what a warp loads at once lies in different banks.
  static constexpr size_t kIntegerStride = kBlockCols + 16 * KQuant<kType>::kWords;
  static constexpr size_t kIntegersAt = kPrefillWarps * kWarpBytes;
  static constexpr size_t kSumsAt = kIntegersAt + 8 * kTiles * kIntegerStride;
  static constexpr size_t kScalesAt = kSumsAt + (KQuant<kType>::kHasMins ? kTokens * 64 : 0);
  static constexpr size_t kStageBytes = kScalesAt + kTokens * sizeof(float);
  static constexpr size_t kSharedBytes = 2 * kStageBytes;
};

/// What a warp multiplies: `first` is its block's first token of `tokens`.
struct PrefillTile {
  WeightView w[kHalves];  // the matrix of each half
  size_t row[kHalves];    // and its first row
  QuantizedView xq;
  size_t first, tokens;

  /// Of the lane: the row and the token of element c of an accumulator.
  __device__ size_t Row(int half, int c) const {
    return row[half] + threadIdx.x % kWarp / 4 + static_cast<size_t>(8 * (c / 2));
  }
  __device__ size_t Token(int tile, int c) const {
    return first + static_cast<size_t>(8 * tile + c % 2) + threadIdx.x % 4 * 2;
  }
};

/// Begins to copy the weights of the calling warp, 16 bytes at a time, two lanes to a row: one
/// takes the even pieces, one the odd ones. Rows behind the last one are that one.
template <class Shape>
__device__ void StageWeights(const PrefillTile& tile, unsigned block, uint8_t* stage) {
  using K = KQuant<Shape::kType>;
  const unsigned r = threadIdx.x % kHalfRows, odd = threadIdx.x % kWarp / kHalfRows;
  uint8_t* const to = stage + threadIdx.x / kWarp * Shape::kWarpBytes + r * Shape::kStride;
  LAB_UNROLL
  for (int half = 0; half < kHalves; ++half) {
    const WeightView& w = tile.w[half];
    const auto row = static_cast<unsigned>(AtMost(tile.row[half] + r, w.rows - 1));
    const unsigned from = row * static_cast<unsigned>(w.cols / kBlockCols) + block;
    LAB_UNROLL
    for (unsigned even = 0; even < K::kPieces; even += 2) {
      const unsigned piece = even + odd;
      if (piece < K::kPieces)
        __pipeline_memcpy_async(to + half * kHalfRows * Shape::kStride + 16 * piece,
                                PieceOf<Shape::kType>(w, from, piece), 16);
    }
  }
}

/// Likewise the activations, by all threads: sixteen of them copy a column of B. Tokens behind the
/// last one are that one.
template <class Shape>
__device__ void StageActivations(const PrefillTile& tile, unsigned block, uint8_t* stage) {
  constexpr unsigned kTokens = Shape::kTokens, kAtOnce = kPrefillThreads / 16;
  const QuantizedView& xq = tile.xq;
  const auto n = static_cast<unsigned>(xq.n);
  const auto last = static_cast<unsigned>(AtMost(tile.tokens - tile.first, size_t{kTokens}) - 1);
  const unsigned piece = threadIdx.x % 16, row = threadIdx.x / 16;
  uint8_t* const to = stage + Shape::kIntegersAt + row * Shape::kIntegerStride + 16 * piece;
  const size_t from = tile.first * n + block * kBlockCols + 16 * piece;
  // Rolled here and below, or addresses would stay in registers.
  LAB_ROLLED
  for (unsigned column = 0; column < 8 * Shape::kTiles; column += kAtOnce) {
    const unsigned token = AtMost(column % kTokens + row, last);
    __pipeline_memcpy_async(to + column * Shape::kIntegerStride,
                            (column < kTokens ? xq.hi : xq.lo) + from + size_t{token} * n, 16);
  }
  if constexpr (KQuant<Shape::kType>::kHasMins) {
    const int32_t* const sums = xq.sums + (tile.first * n + block * kBlockCols) / kGroup;
    LAB_ROLLED
    for (unsigned i = threadIdx.x; i < kTokens * 4; i += kPrefillThreads)
      __pipeline_memcpy_async(stage + Shape::kSumsAt + 16 * i,
                              sums + size_t{AtMost(i / 4, last)} * (n / kGroup) + i % 4 * 4, 16);
  }
  if (threadIdx.x < kTokens)
    __pipeline_memcpy_async(
        stage + Shape::kScalesAt + threadIdx.x * sizeof(float),
        xq.scale + (tile.first + AtMost(threadIdx.x, last)) * (n / kBlockCols) + block,
        sizeof(float));
}

__device__ inline void LoadIntegers(const uint8_t* at, unsigned (&b)[1]) {
  b[0] = WordAt(at);
}
__device__ inline void LoadIntegers(const uint8_t* at, unsigned (&b)[2]) {
  const uint2 words = *reinterpret_cast<const uint2*>(at);
  b[0] = words.x, b[1] = words.y;
}

/// p = P of the block for the rows of the warp. `weights`: its own, `integers`: those of the stage.
template <class Shape>
__device__ void MultiplyBlock(const uint8_t* weights, const uint8_t* integers,
                              int (&p)[kHalves][Shape::kTiles][4]) {
  using K = KQuant<Shape::kType>;
  const unsigned g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
  for (auto& of_half : p)
    for (auto& of_tile : of_half)
      for (int& sum : of_tile) sum = 0;
  // Unrolled, it needs more registers than there are.
  LAB_ROLLED
  for (int bundle = 0; bundle < K::kBundles; ++bundle) {
    unsigned a[kHalves][2][2 * K::kWords];
    int scales[2 * kHalves][2];
    LAB_UNROLL
    for (int r = 0; r < 2 * kHalves; ++r) {
      const uint8_t* const row = weights + (8 * r + g) * Shape::kStride;
      unsigned q[2][K::kWords];
      LoadScales<Shape::kType>(row, bundle, scales[r]);
      UnpackBundle<Shape::kType>(row, bundle, t, q);
      for (int i = 0; i < 2; ++i)
        for (int word = 0; word < K::kWords; ++word) a[r / 2][i][2 * word + r % 2] = q[i][word];
    }
    LAB_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int group = GroupOf<Shape::kType>(bundle, i);
      LAB_UNROLL
      for (int tile = 0; tile < Shape::kTiles; ++tile) {
        unsigned b[K::kWords];
        LoadIntegers(integers + (8 * tile + g) * Shape::kIntegerStride +
                         kBlockCols / K::kGroups * group + 4 * K::kWords * t,
                     b);
        LAB_UNROLL
        for (int half = 0; half < kHalves; ++half) {
          int dot[4] = {0, 0, 0, 0};
          Mma(a[half][i], b, dot);
          for (int c = 0; c < 4; ++c) p[half][tile][c] += scales[2 * half + c / 2][i] * dot[c];
        }
      }
    }
  }
}

/// The bits of d of a block of one of the warp's rows, that of the lane's number, where d is in no
/// stage (Q6_K): asked for before the products, so that it has time to come. Else 0.
template <class Shape>
__device__ unsigned LoadUnstagedScale(const PrefillTile& tile, unsigned block) {
  if constexpr (Shape::kType != BlockType::Q6_K) return 0;
  const unsigned lane = threadIdx.x % kWarp;
  const auto bits = [&](int half) -> unsigned {
    const WeightView& w = tile.w[half];
    const size_t row = AtMost(tile.row[half] + lane % kHalfRows, w.rows - 1);
    const size_t at = row * (w.cols / kBlockCols) + block;
    return *reinterpret_cast<const uint16_t*>(Field<BlockType::Q6_K, 3>(w, at));
  };
  return lane < kHalfRows ? bits(0) : bits(1);
}

/// s = S of the block for the rows of the warp and eight tokens. A sum is taken apart into bytes,
/// the highest signed: two under q8, where it is below 2^11, three under q16.
template <class Shape>
__device__ void MultiplyMins(const uint8_t* weights, const uint8_t* sums, int (&s)[kHalves][4]) {
  constexpr int kBytes = Shape::kActs == Acts::q16 ? 3 : 2;
  const unsigned g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
  const uint4 sum = Load16(sums + 64 * g + 16 * t);
  LAB_UNROLL
  for (int half = 0; half < kHalves; ++half) {
    const uint8_t* const row = weights + (16 * half + g) * Shape::kStride;
    const unsigned mins[2] = {MinsOf(row, t), MinsOf(row + 8 * Shape::kStride, t)};
    for (int& value : s[half]) value = 0;
    LAB_UNROLL
    for (int byte = kBytes - 1; byte >= 0; --byte) {
      const unsigned pick = static_cast<unsigned>(0x40 + 0x11 * byte);
      const unsigned b[1] = {
          __byte_perm(__byte_perm(sum.x, sum.y, pick), __byte_perm(sum.z, sum.w, pick), 0x5410)};
      for (int& value : s[half]) value *= 256;
      if (byte == kBytes - 1)
        Mma(mins, b, s[half]);
      else
        MmaUnsigned(mins, b, s[half]);
    }
  }
}

/// Adds a block to y. unstaged: of LoadUnstagedScale.
template <class Shape>
__device__ void AddBlock(unsigned unstaged, const uint8_t* weights, const uint8_t* stage,
                         const int (&p)[kHalves][Shape::kTiles][4],
                         float (&y)[kHalves][Shape::kTokenTiles][4]) {
  const auto* const scales = reinterpret_cast<const float2*>(stage + Shape::kScalesAt);
  // The bits of d, and of dmin above them.
  const unsigned factors = Shape::kType == BlockType::Q6_K
                               ? unstaged
                               : WordAt(weights + threadIdx.x % kWarp * Shape::kStride);
  float d[2 * kHalves], dmin[2 * kHalves];
  LAB_UNROLL
  for (int r = 0; r < 2 * kHalves; ++r) {
    const unsigned both = __shfl_sync(kAllLanes, factors, 8 * r + threadIdx.x % kWarp / 4);
    d[r] = HalfValue(both & 0xffff);
    dmin[r] = HalfValue(both >> 16);
  }
  LAB_UNROLL
  for (int tile = 0; tile < Shape::kTokenTiles; ++tile) {
    const float2 scale = scales[4 * tile + threadIdx.x % 4];
    int s[kHalves][4];
    if constexpr (KQuant<Shape::kType>::kHasMins)
      MultiplyMins<Shape>(weights, stage + Shape::kSumsAt + 8 * 64 * tile, s);
    LAB_UNROLL
    for (int i = 0; i < 4 * kHalves; ++i) {
      const int half = i / 4, c = i % 4;
      float product = static_cast<float>(p[half][tile][c]);
      if constexpr (Shape::kActs == Acts::q16)
        product = fmaf(256, product, static_cast<float>(p[half][Shape::kTokenTiles + tile][c]));
      const int r = 2 * half + c / 2;
      float value;
      if constexpr (KQuant<Shape::kType>::kHasMins)
        value = fmaf(d[r], product, -(dmin[r] * static_cast<float>(s[half][c])));
      else
        value = d[r] * product;
      y[half][tile][c] = fmaf(c % 2 ? scale.y : scale.x, value, y[half][tile][c]);
    }
  }
}

/// y = the products of the warp's rows with the tokens of the tile, element c of half and tile of
/// eight tokens being that of tile.Row and tile.Token. For all threads of a block; warps behind
/// the last row leave y alone. While a block of columns is multiplied, the next one is on its way.
template <class Shape>
__device__ void PrefillDots(const PrefillTile& tile, float (&y)[kHalves][Shape::kTokenTiles][4]) {
  uint8_t* const shared = DynamicShared<uint8_t>();
  // Blocks, those of a whole matrix too, in 32 bits (2^32 are 618 GB of Q4_K): else sm_120 spills.
  const auto blocks = static_cast<unsigned>(tile.w[0].cols / kBlockCols);
  const bool has_rows = tile.row[0] < tile.w[0].rows;
  const auto begin_stage = [&](unsigned block) {
    uint8_t* const stage = shared + block % 2 * Shape::kStageBytes;
    if (has_rows) StageWeights<Shape>(tile, block, stage);
    StageActivations<Shape>(tile, block, stage);
  };
  for (auto& of_half : y)
    for (auto& of_tile : of_half)
      for (float& value : of_tile) value = 0;
  begin_stage(0);
  __pipeline_commit();
  for (unsigned block = 0; block < blocks; ++block) {
    if (block + 1 < blocks) begin_stage(block + 1);
    __pipeline_commit();
    __pipeline_wait_prior(1);
    __syncthreads();  // what all threads copied is there
    if (has_rows) {
      const uint8_t* const stage = shared + block % 2 * Shape::kStageBytes;
      const uint8_t* const weights = stage + threadIdx.x / kWarp * Shape::kWarpBytes;
      const unsigned unstaged = LoadUnstagedScale<Shape>(tile, block);
      int p[kHalves][Shape::kTiles][4];
      MultiplyBlock<Shape>(weights, stage + Shape::kIntegersAt, p);
      AddBlock<Shape>(unstaged, weights, stage, p, y);
    }
    __syncthreads();  // before the stage is overwritten
  }
}

/// Tokens from which on the tensor cores take over: those that fill the 8 columns of an mma. Below,
/// kernels/dot.cuh reads the weights at most twice, and in many more blocks.
constexpr size_t kPrefillTokens = 8;

/// f(PrefillShape) on the host, which says whether it launched a kernel; false where these kernels
/// are not for the weights, the activations or so few tokens. The small shape takes those that fit
/// into one of its tiles.
template <class F>
bool WithPrefill(BlockType type, const QuantizedView& xq, size_t tokens, F&& f) {
  constexpr int kFewTiles = 2, kManyTiles = 8;
  if (tokens < kPrefillTokens || ActsOf(xq) == Acts::f32) return false;
  bool launched = false;
  const auto with_acts = [&](auto tag, auto acts) {
    using Few = PrefillShape<tag.kType, acts.value, kFewTiles>;
    launched =
        tokens <= Few::kTokens ? f(Few()) : f(PrefillShape<tag.kType, acts.value, kManyTiles>());
  };
  WithType(type, [&](auto tag) {
    if constexpr (IsKQuant(tag.kType)) {
      if (ActsOf(xq) == Acts::q8)
        with_acts(tag, std::integral_constant<Acts, Acts::q8>());
      else
        with_acts(tag, std::integral_constant<Acts, Acts::q16>());
    }
  });
  return launched;
}

/// A block of the grid for so many rows and the tokens of a shape. False where the device cannot.
template <class Shape, class Args>
bool LaunchPrefill(void (*kernel)(Args), size_t rows, size_t rows_of_block, size_t tokens,
                   const Args& a, cudaStream_t stream) {
  if (PtxVersion(kernel) < 80) return false;
  Launch(kernel, dim3(BlocksFor(rows, rows_of_block), BlocksFor(tokens, Shape::kTokens)),
         kPrefillThreads, Shape::kSharedBytes, stream, a);
  return true;
}

}  // namespace lab::LAB_CUDA_NAMESPACE
