// Kernels with a fault planted in them: each must fail, by the SIMT layer or by the judge, whatever
// the order in which warps run; the same kernels without the fault must pass.
#include <gtest/gtest.h>

#include <string>

#include "kernels/elementwise.cuh"
#include "kernels/on_device.cuh"
#include "kernels/prefill.cuh"
#include "kernels/silu.cuh"
#include "kernels/warp.cuh"
#include "lab/edge_blocks.h"
#include "lab/judge.h"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

#ifdef LAB_SIMT_CHECKS_ACCESS
constexpr bool kChecksAccess = true;
#else
constexpr bool kChecksAccess = false;
#endif

constexpr unsigned kThreads = 256, kWarps = kThreads / kWarp;

enum class Slip {
  none,
  missing_barrier,
  missing_second_barrier,
  wrong_mask,
  lanes_left_out,
  shared_overrun,
  uninitialised,
  race_in_shared,
  missing_syncwarp,
};

// The sum of `value` over a block, from sums of its warps in shared memory.
template <Slip kSlip>
__device__ float BlockSum(float value, float* partial) {
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const unsigned mask = kSlip == Slip::wrong_mask ? 0x0000ffff : kAllLanes;
    if (kSlip == Slip::lanes_left_out && lane >= 24) continue;
    value += __shfl_xor_sync(mask, value, distance);
  }
  if constexpr (kSlip == Slip::race_in_shared) {
    if (threadIdx.x == 0) partial[0] = 0;
    __syncthreads();
    if (lane == 0) partial[0] += value;
    __syncthreads();
    return partial[0];
  }
  if (lane == 0 && !(kSlip == Slip::uninitialised && warp == 3)) partial[warp] = value;
  if (kSlip != Slip::missing_barrier) __syncthreads();
  float sum = 0;
  for (unsigned w = 0; w < kWarps; ++w) sum += partial[w];
  return sum;
}

template <Slip kSlip>
__global__ void RmsNormKernel(RmsNormArgs<float> a) {
  LAB_SHARED(float, partial, kSlip == Slip::shared_overrun ? kWarps - 1 : kWarps);
  LAB_SHARED(float, staged, kThreads);
  const float* const x = a.x + size_t{blockIdx.x} * a.n;
  float squares = 0;
  for (size_t i = threadIdx.x; i < a.n; i += kThreads) {
    float value = x[i];
    if constexpr (kSlip == Slip::missing_syncwarp) {
      // By way of the neighbour's place, which the neighbour may not have filled yet.
      staged[threadIdx.x] = value;
      const unsigned neighbour = threadIdx.x ^ 1, own = staged[neighbour] == value;
      value = x[i] + 0.0f * static_cast<float>(own) + 0.0f * staged[neighbour];
    }
    squares = fmaf(value, value, squares);
  }
  float* const sums = partial;
  if constexpr (kSlip == Slip::missing_second_barrier) {
    // The second sum goes where slower warps still read the first.
    squares = BlockSum<Slip::none>(squares, sums) / kThreads;
    squares = BlockSum<Slip::none>(squares, sums);
  } else {
    squares = BlockSum<kSlip>(squares, sums);
  }
  const float rms = sqrtf(squares / static_cast<float>(a.n) + a.eps);
  for (size_t i = threadIdx.x; i < a.n; i += kThreads)
    a.y[size_t{blockIdx.x} * a.n + i] = x[i] / rms * a.weight[i];
}

template <Slip kSlip>
void RmsNorm(const RmsNormArgs<float>& args) {
  RunOnDevice(
      args, +[](const RmsNormArgs<float>& a, cudaStream_t stream) {
        Launch(RmsNormKernel<kSlip>, static_cast<unsigned>(a.tokens), kThreads, 0, stream, a);
      });
}

// Element-wise faults. kPerBlock: how far apart blocks of 256 threads begin.
template <bool kMasked, unsigned kPerBlock>
__global__ void SiluKernel(SiluArgs<float> a) {
  const size_t i = size_t{blockIdx.x} * kPerBlock + threadIdx.x;
  if (!kMasked || i < a.n) a.y[i] = SiluOf(a.x[i]);
}

template <bool kMasked, unsigned kPerBlock>
void Silu(const SiluArgs<float>& args) {
  RunOnDevice(
      args, +[](const SiluArgs<float>& a, cudaStream_t stream) {
        Launch(SiluKernel<kMasked, kPerBlock>, BlocksFor(a.n, kPerBlock), kThreads, 0, stream, a);
      });
}

// Puts a NaN with the bits of fresh memory behind the buffer. An atomic is not seen as an access,
// so the redzone alone can tell.
__global__ void SiluAndNanBehind(SiluArgs<float> a) {
  const size_t i = size_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < a.n) a.y[i] = SiluOf(a.x[i]);
  if (i == 0) atomicExch(reinterpret_cast<unsigned*>(a.y + a.n), 0xffffffff);
}

void SiluWithNanInRedzone(const SiluArgs<float>& args) {
  RunOnDevice(
      args, +[](const SiluArgs<float>& a, cudaStream_t stream) {
        Launch(SiluAndNanBehind, BlocksFor(a.n, kThreads), kThreads, 0, stream, a);
      });
}

// The loop of PrefillDots and what stores its sums, on the functions that it calls.
enum class PrefillSlip {
  none,
  no_barrier_after_the_copy,
  no_barrier_before_the_overwrite,
  no_wait,
  one_stage,
  unmasked_rows,
  unmasked_tokens,
};

template <PrefillSlip kSlip>
__global__ void PrefillKernel(MatvecArgs<float> a) {
  using Shape = PrefillShape<BlockType::Q4_K, Acts::q8, 2>;
  const size_t row = threadIdx.x / kWarp * 32;
  const PrefillTile tile = {{a.w, a.w}, {row, row + 16}, a.xq, 0, a.tokens};
  uint8_t* const shared = DynamicShared<uint8_t>();
  const auto stage_of = [&](unsigned block) {
    return shared + (kSlip == PrefillSlip::one_stage ? 0 : block % 2 * Shape::kStageBytes);
  };
  const auto begin_stage = [&](unsigned block) {
    StageWeights<Shape>(tile, block, stage_of(block));
    StageActivations<Shape>(tile, block, stage_of(block));
  };
  const auto blocks = static_cast<unsigned>(a.w.cols / kBlockCols);
  float y[kHalves][Shape::kTokenTiles][4] = {};
  begin_stage(0);
  __pipeline_commit();
  for (unsigned block = 0; block < blocks; ++block) {
    if (block + 1 < blocks) begin_stage(block + 1);
    __pipeline_commit();
    __pipeline_wait_prior(kSlip == PrefillSlip::no_wait ? 2 : 1);
    if (kSlip != PrefillSlip::no_barrier_after_the_copy) __syncthreads();
    const uint8_t* const weights = stage_of(block) + threadIdx.x / kWarp * Shape::kWarpBytes;
    const unsigned unstaged = LoadUnstagedScale<Shape>(tile, block);
    int p[kHalves][Shape::kTiles][4];
    MultiplyBlock<Shape>(weights, stage_of(block) + Shape::kIntegersAt, p);
    AddBlock<Shape>(unstaged, weights, stage_of(block), p, y);
    if (kSlip != PrefillSlip::no_barrier_before_the_overwrite) __syncthreads();
  }
  for (int i = 0; i < kHalves * Shape::kTokenTiles * 4; ++i) {
    const int half = i / 4 % kHalves, of_tokens = i / 4 / kHalves, c = i % 4;
    const size_t r = tile.Row(half, c), token = tile.Token(of_tokens, c);
    if (r >= a.w.rows && kSlip != PrefillSlip::unmasked_rows) continue;
    if (token >= a.tokens && kSlip != PrefillSlip::unmasked_tokens) continue;
    a.y[token * a.y_stride + r] = y[half][of_tokens][c];
  }
}

template <PrefillSlip kSlip>
void Prefill(const MatvecArgs<float>& args) {
  using Shape = PrefillShape<BlockType::Q4_K, Acts::q8, 2>;
  RunOnDevice(
      args, +[](const MatvecArgs<float>& a, cudaStream_t stream) {
        Launch(PrefillKernel<kSlip>, 1, kPrefillThreads, Shape::kSharedBytes, stream, a);
      });
}

// What the kernel before writes is read before it is waited for.
__global__ void TooEarly(SiluArgs<float> a) {
  const size_t i = size_t{blockIdx.x} * kThreads + threadIdx.x;
  const float x = i < a.n ? a.x[i] : 0;
  WaitForPrevious();
  if (i < a.n) a.y[i] = SiluOf(x);
}

void SiluTooEarly(const SiluArgs<float>& args) {
  RunOnDevice(
      args, +[](const SiluArgs<float>& a, cudaStream_t stream) {
        Launch(TooEarly, BlocksFor(a.n, kThreads), kThreads, 0, stream, a);
      });
}

// A prefetch is no access, so that nothing else can tell.
__global__ void PrefetchBehind(SiluArgs<float> a) {
  const size_t i = size_t{blockIdx.x} * kThreads + threadIdx.x;
  PrefetchWeights(a.x + a.n);
  WaitForPrevious();
  if (i < a.n) a.y[i] = SiluOf(a.x[i]);
}

void SiluWithPrefetchBehind(const SiluArgs<float>& args) {
  RunOnDevice(
      args, +[](const SiluArgs<float>& a, cudaStream_t stream) {
        Launch(PrefetchBehind, BlocksFor(a.n, kThreads), kThreads, 0, stream, a);
      });
}

// A kernel that is handed a pointer to host memory.
void SiluOfHostMemory(const SiluArgs<float>& a) {
  Launch(SiluKernel<true, kThreads>, BlocksFor(a.n, kThreads), kThreads, 0, nullptr, a);
}

template <class Args, void (*kFunction)(const Args&)>
Row MakeRow(Op op, Contract contract = Contract::f32) {
  return {op,
          contract,
          Backend::cuda_host,
          "planted",
          &typeid(Args),
          [](const void* args) {
            kFunction(*static_cast<const Args*>(args)); }};
}
template <Slip kSlip>
Row RmsNormRow() {
  return MakeRow<RmsNormArgs<float>, RmsNorm<kSlip>>(Op::rms_norm);
}

template <PrefillSlip kSlip>
Row PrefillRow() {
  return MakeRow<MatvecArgs<float>, Prefill<kSlip>>(Op::down_proj, Contract::q8);
}

// Three tokens of 900 channels; or thirteen of 768 and 125 rows of weights.
Case CaseFor(const Row& row) {
  Case c;
  c.op = row.op;
  if (row.op == Op::down_proj) {
    Random random(1);
    const auto weights = std::make_shared<std::vector<uint8_t>>(
        MakeBlocks(BlockType::Q4_K, Fill::ordinary, 125, 768, random));
    c.w = {BlockType::Q4_K, weights->data(), 125, 768};
    c.owned.push_back(weights);
  }
  c.tokens = row.op == Op::down_proj ? 13 : 3;
  c.eps = 1e-6f;
  const int values = row.op == Op::down_proj ? 13 * 768 : 2700;
  for (int i = 0; i < values; ++i) c.x.push_back(std::sin(static_cast<float>(i * i)));
  if (row.op == Op::rms_norm) c.vector.assign(900, 1.5f);
  return c;
}

// Each fault is to be found in each of these orders, not in one of them.
constexpr uint64_t kSeeds = 20;

// What the judge says of a row, or "" if it passes.
std::string WhyItFails(const Row& row, uint64_t seed) {
  const Case c = CaseFor(row);
  SetScheduleSeed(seed);
  const Verdict v = JudgeRow(c, {&row}, ExpectedOf(c, row.contract, false), false, 1, 4, 32);
  if (v.status == Status::fail) return v.why;
  EXPECT_EQ(v.status, Status::pass);
  return "";
}

// `message`: part of what is said where the layer sees every access; elsewhere the judge may say
// something else, or, where it sees nothing (`access_only`), nothing.
void ExpectCaught(const Row& row, const std::string& message, bool access_only = false) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const std::string why = WhyItFails(row, seed);
    if (kChecksAccess) {
      EXPECT_NE(why.find(message), std::string::npos) << "seed " << seed << ": '" << why << "'";
    } else if (!access_only) {
      EXPECT_NE(why, "") << "seed " << seed;
    }
  }
}

TEST(PlantedFaults, WithoutOneTheKernelsPass) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    EXPECT_EQ(WhyItFails(RmsNormRow<Slip::none>(), seed), "");
    EXPECT_EQ(WhyItFails(MakeRow<SiluArgs<float>, Silu<true, kThreads>>(Op::silu), seed), "");
    EXPECT_EQ(WhyItFails(PrefillRow<PrefillSlip::none>(), seed), "");
  }
}
TEST(PlantedFaults, MissingBarrier) {
  ExpectCaught(RmsNormRow<Slip::missing_barrier>(), "shared memory that");
}
TEST(PlantedFaults, MissingBarrierBeforeTheSecondUse) {
  ExpectCaught(RmsNormRow<Slip::missing_second_barrier>(), "race: writes shared memory");
}
TEST(PlantedFaults, MissingSyncwarp) {
  ExpectCaught(RmsNormRow<Slip::missing_syncwarp>(), "shared memory that");
}
TEST(PlantedFaults, WrongLaneMask) {
  ExpectCaught(RmsNormRow<Slip::wrong_mask>(), "mask 0x0000ffff");
}
TEST(PlantedFaults, LanesThatLeaveTheWarpBehind) {
  ExpectCaught(RmsNormRow<Slip::lanes_left_out>(), "waits for lane 24 of mask 0xffffffff");
}
TEST(PlantedFaults, SharedMemoryOverrun) {
  ExpectCaught(RmsNormRow<Slip::shared_overrun>(), "writes 4 bytes outside its shared arrays");
}
TEST(PlantedFaults, UninitialisedSharedMemory) {
  ExpectCaught(RmsNormRow<Slip::uninitialised>(), "reads shared memory that no thread has written");
}
TEST(PlantedFaults, RaceOnAccumulationInSharedMemory) {
  ExpectCaught(RmsNormRow<Slip::race_in_shared>(), "race: ", true);
}
TEST(PlantedFaults, UnmaskedTail) {
  ExpectCaught(MakeRow<SiluArgs<float>, Silu<false, kThreads>>(Op::silu), "behind a device buffer");
}
TEST(PlantedFaults, ANanInARedzone) {
  ExpectCaught(MakeRow<SiluArgs<float>, SiluWithNanInRedzone>(Op::silu),
               "wrote behind a device buffer");
}
TEST(PlantedFaults, BlocksThatOverlap) {
  ExpectCaught(MakeRow<SiluArgs<float>, Silu<true, kThreads - 8>>(Op::silu),
               "another block of the launch wrote", true);
}
TEST(PlantedFaults, ReadingBeforeTheWait) {
  ExpectCaught(MakeRow<SiluArgs<float>, SiluTooEarly>(Op::silu), "before it waited", true);
}
TEST(PlantedFaults, APrefetchBehindTheBuffer) {
  const std::string why = WhyItFails(MakeRow<SiluArgs<float>, SiluWithPrefetchBehind>(Op::silu), 1);
  EXPECT_NE(why.find("prefetches what is in no device buffer"), std::string::npos) << why;
}
TEST(PlantedFaults, APointerToHostMemory) {
  ExpectCaught(MakeRow<SiluArgs<float>, SiluOfHostMemory>(Op::silu), "not the device's", true);
}
TEST(PlantedFaults, PrefillWithoutABarrierAfterTheCopy) {
  ExpectCaught(PrefillRow<PrefillSlip::no_barrier_after_the_copy>(), "shared memory that");
}
TEST(PlantedFaults, PrefillWithoutABarrierBeforeTheOverwrite) {
  ExpectCaught(PrefillRow<PrefillSlip::no_barrier_before_the_overwrite>(), "race: ", true);
}
TEST(PlantedFaults, PrefillThatDoesNotWaitForTheCopy) {
  ExpectCaught(PrefillRow<PrefillSlip::no_wait>(),
               "reads shared memory that no thread has written");
}
TEST(PlantedFaults, PrefillWithOneStageForTwoBlocks) {
  ExpectCaught(PrefillRow<PrefillSlip::one_stage>(), "asynchronous copy is still to write", true);
}
TEST(PlantedFaults, PrefillWithUnmaskedRows) {
  ExpectCaught(PrefillRow<PrefillSlip::unmasked_rows>(), "writes ");
}
TEST(PlantedFaults, PrefillWithUnmaskedTokens) {
  // 1500 bytes behind the buffer, more than a redzone has: AddressSanitizer ends the program. What
  // lies there may be the redzone before the next one.
  if (!kChecksAccess) GTEST_SKIP() << "needs the access checker";
  ExpectCaught(PrefillRow<PrefillSlip::unmasked_tokens>(), " a device buffer of ");
}

}  // namespace
}  // namespace lab::LAB_CUDA_NAMESPACE
