// The SIMT layer itself: each intrinsic against what CUDA's programming guide says it does.
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "kernels/half.h"
#include "kernels/on_device.cuh"
#include "kernels/warp.cuh"
#include "lab/error.h"
#include "reference/dequant_ref.h"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

// kernel(out) on one block; what it wrote to out[0 .. n - 1], which starts as 0xffffffff.
std::vector<unsigned> RunBlock(void (*kernel)(unsigned*), unsigned threads, size_t n,
                               size_t shared = 0) {
  DeviceBuffer out(n * sizeof(unsigned));
  auto* const words = reinterpret_cast<unsigned*>(out.data());
  Launch(kernel, 1, threads, shared, nullptr, words);
  return {words, words + n};
}

std::vector<unsigned> Of(size_t n, const std::function<size_t(size_t)>& f) {
  std::vector<unsigned> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = static_cast<unsigned>(f(i));
  return values;
}

__global__ void Shuffles(unsigned* out) {
  const unsigned i = threadIdx.x;
  out[i] = __shfl_sync(kAllLanes, i, 5);
  out[32 + i] = __shfl_xor_sync(kAllLanes, i, 3);
  out[64 + i] = __shfl_down_sync(kAllLanes, i, 4);
  out[96 + i] = __shfl_up_sync(kAllLanes, i, 4);
  out[128 + i] = __shfl_sync(kAllLanes, i, 9, 8);
  out[160 + i] = __shfl_down_sync(kAllLanes, i, 3, 8);
  out[192 + i] = __shfl_xor_sync(kAllLanes, i, 8, 8);
}

TEST(Simt, Shuffles) {
  const auto expected = Of(224, [](size_t at) -> size_t {
    const size_t i = at % 32;
    switch (at / 32) {
      case 0:
        return 5;
      case 1:
        return i ^ 3;
      case 2:
        return i + 4 < 32 ? i + 4 : i;
      case 3:
        return i >= 4 ? i - 4 : i;
      case 4:
        return i / 8 * 8 + 1;
      case 5:
        return i % 8 + 3 < 8 ? i + 3 : i;
      default:
        return i / 8 % 2 ? i - 8 : i;  // from the group before; instead of a later one its own
    }
  });
  EXPECT_EQ(RunBlock(Shuffles, 32, 224), expected);
}

__global__ void Votes(unsigned* out) {
  const unsigned i = threadIdx.x;
  const int odd = i % 2, value = static_cast<int>(i) - 16;
  const unsigned ballot = __ballot_sync(kAllLanes, odd);
  const int any = __any_sync(kAllLanes, i == 7), all = __all_sync(kAllLanes, i < 32);
  const int least = __reduce_min_sync(kAllLanes, value), most = __reduce_max_sync(kAllLanes, value);
  const int sum = __reduce_add_sync(kAllLanes, value);
  unsigned half = 0;  // two halves of a warp, each by itself
  if (i < 16)
    half = __reduce_add_sync(0x0000ffff, i);
  else
    half = __ballot_sync(0xffff0000, 1);
  if (i == 0) {
    out[0] = ballot, out[1] = static_cast<unsigned>(any), out[2] = static_cast<unsigned>(all);
    out[3] = static_cast<unsigned>(least), out[4] = static_cast<unsigned>(most);
    out[5] = static_cast<unsigned>(sum), out[6] = half;
  }
  if (i == 31) out[7] = half;
}

TEST(Simt, VotesAndReductions) {
  const std::vector<unsigned> expected = {
      0xaaaaaaaa, 1,         1, static_cast<unsigned>(-16), 15, static_cast<unsigned>(-16),
      120,        0xffff0000};
  EXPECT_EQ(RunBlock(Votes, 32, 8), expected);
}

// Every thread adds its number; the one that comes last stores the sum.
__global__ void Atomics(unsigned* out) {
  LAB_SHARED(unsigned, sum, 1);
  if (threadIdx.x == 0) {
    sum[0] = 0;
    out[1] = 0;
  }
  __syncthreads();
  atomicAdd(&sum[0], threadIdx.x);
  atomicMax(&out[1], threadIdx.x);
  __syncthreads();
  if (threadIdx.x == 0) out[0] = sum[0];
}

TEST(Simt, AtomicsAndBarriers) {
  EXPECT_EQ(RunBlock(Atomics, 1000, 2), (std::vector<unsigned>{999 * 1000 / 2, 999}));
}

// Each warp hands the values of its lanes, one warp later than they were written.
__global__ void Relay(unsigned* out) {
  auto* const buffer = DynamicShared<unsigned>();
  for (unsigned round = 0; round < 3; ++round) {
    buffer[threadIdx.x] = threadIdx.x + 1000 * round;
    __syncthreads();
    out[round * 96 + threadIdx.x] = buffer[(threadIdx.x + 32) % 96];
    __syncthreads();
  }
}

TEST(Simt, DynamicSharedMemoryBetweenBarriers) {
  EXPECT_EQ(RunBlock(Relay, 96, 288, 96 * sizeof(unsigned)),
            Of(288, [](size_t at) { return (at % 96 + 32) % 96 + at / 96 * 1000; }));
}

__global__ void AsyncCopies(unsigned* out) {
  LAB_SHARED(unsigned, staged, 64);
  out[threadIdx.x] = threadIdx.x;
  out[32 + threadIdx.x] = 100 + threadIdx.x;
  for (unsigned batch = 0; batch < 2; ++batch) {
    __pipeline_memcpy_async(&staged[32 * batch + threadIdx.x], &out[32 * batch + threadIdx.x], 4);
    __pipeline_commit();
  }
  __pipeline_wait_prior(1);
  out[64 + threadIdx.x] = staged[threadIdx.x];
  __pipeline_wait_prior(0);
  out[96 + threadIdx.x] = staged[32 + threadIdx.x];
}

TEST(Simt, AsynchronousCopiesArriveWhenWaitedFor) {
  EXPECT_EQ(RunBlock(AsyncCopies, 32, 128),
            Of(128, [](size_t at) { return at % 32 + (at / 32 % 2) * 100; }));
}

__global__ void CopiesOffAlignment(unsigned* out) {
  LAB_SHARED(unsigned, staged, 64);
  __pipeline_memcpy_async(&staged[0], &out[1], 16);
}

TEST(Simt, AsynchronousCopiesAreAligned) {
  EXPECT_THROW(RunBlock(CopiesOffAlignment, 32, 64), Error);
}

#ifdef LAB_SIMT_CHECKS_ACCESS
__global__ void ReadsBeforeTheCopy(unsigned* out) {
  LAB_SHARED(unsigned, staged, 32);
  out[threadIdx.x] = threadIdx.x;
  __pipeline_memcpy_async(&staged[threadIdx.x], &out[threadIdx.x], 4);
  __pipeline_commit();
  out[threadIdx.x] = staged[threadIdx.x];
}

TEST(Simt, ReadingBeforeTheWaitIsAFault) {
  EXPECT_THROW(RunBlock(ReadsBeforeTheCopy, 32, 32), Error);
}

// What was there before may be overwritten at any time.
__global__ void ReadsWhatIsBeingOverwritten(unsigned* out) {
  LAB_SHARED(unsigned, staged, 32);
  staged[threadIdx.x] = out[threadIdx.x] = threadIdx.x;
  __pipeline_memcpy_async(&staged[threadIdx.x], &out[threadIdx.x], 4);
  out[threadIdx.x] = staged[threadIdx.x];
  __pipeline_commit();
  __pipeline_wait_prior(0);
}

TEST(Simt, ReadingWhileACopyIsOnItsWayIsAFault) {
  EXPECT_THROW(RunBlock(ReadsWhatIsBeingOverwritten, 32, 32), Error);
}
#endif

__global__ void Indices(unsigned* out) {
  const unsigned i = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned block = blockIdx.y * gridDim.x + blockIdx.x;
  out[block * 24 + i] = threadIdx.x + 10 * threadIdx.y + 100 * threadIdx.z + 1000 * block;
}

TEST(Simt, IndicesInThreeDimensions) {
  DeviceBuffer out(6 * 24 * sizeof(unsigned));
  auto* const words = reinterpret_cast<unsigned*>(out.data());
  Launch(Indices, dim3(3, 2), dim3(4, 3, 2), 0, nullptr, words);
  EXPECT_EQ(std::vector<unsigned>(words, words + 144), Of(144, [](size_t at) {
              const size_t i = at % 24;
              return i % 4 + 10 * (i / 4 % 3) + 100 * (i / 12) + 1000 * (at / 24);
            }));
}

TEST(Simt, ByteArithmetic) {
  EXPECT_EQ(__dp4a(0x7f80ff01, 0x02030405, 10), 127 * 2 - 128 * 3 - 1 * 4 + 1 * 5 + 10);
  EXPECT_EQ(__byte_perm(0x33221100, 0x77665544, 0x7250), 0x77225500u);
}

TEST(Simt, HalvesAreThoseOfTheReference) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const auto bits = static_cast<uint16_t>(h);
    const float value = __half2float(__ushort_as_half(bits)), expected = HalfToFloat(bits);
    ASSERT_EQ(__float_as_uint(value), __float_as_uint(expected)) << h;
    if (value == value) {
      ASSERT_EQ(__half_as_ushort(__float2half_rn(value)), bits);
    }
  }
}

TEST(Simt, ImpossibleLaunchesAreErrors) {
  EXPECT_THROW(RunBlock(Indices, 0, 1), Error);
  EXPECT_THROW(RunBlock(Indices, 1025, 1), Error);
  EXPECT_THROW(RunBlock(Relay, 96, 288, 1 << 20), Error);
}

}  // namespace
}  // namespace lab::LAB_CUDA_NAMESPACE
