// Kernels with a fault planted in them: each must fail, by the SIMT layer or by the judge, whatever
// the order in which warps run; the same kernels without the fault must pass.
#include <gtest/gtest.h>

#include <string>

#include "kernels/elementwise.cuh"
#include "kernels/on_device.cuh"
#include "kernels/silu.cuh"
#include "kernels/warp.cuh"
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

// A kernel that is handed a pointer to host memory.
void SiluOfHostMemory(const SiluArgs<float>& a) {
  Launch(SiluKernel<true, kThreads>, BlocksFor(a.n, kThreads), kThreads, 0, nullptr, a);
}

template <class Args, void (*kFunction)(const Args&)>
Row MakeRow(Op op) {
  return {op,
          Contract::f32,
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

// Each fault is to be found in each of these orders, not in one of them.
constexpr uint64_t kSeeds = 20;

// What the judge says of a row on a case of three tokens of 900 channels, or "" if it passes.
std::string WhyItFails(const Row& row, uint64_t seed) {
  Case c;
  c.op = row.op;
  c.tokens = 3;
  c.eps = 1e-6f;
  for (int i = 0; i < 2700; ++i) c.x.push_back(std::sin(static_cast<float>(i * i)));
  c.vector.assign(900, 1.5f);
  SetScheduleSeed(seed);
  const Verdict v = JudgeRow(c, {&row}, ExpectedOf(c, Contract::f32, false), false, 1, 4, 32);
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
TEST(PlantedFaults, APointerToHostMemory) {
  ExpectCaught(MakeRow<SiluArgs<float>, SiluOfHostMemory>(Op::silu), "not the device's", true);
}

}  // namespace
}  // namespace lab::LAB_CUDA_NAMESPACE
