#pragma once
// CUDA's language for a host compiler, so that the same .cu files run without a GPU: what nvcc and
// the CUDA runtime would supply, as far as the kernels of this project use it. Every thread of a
// block is a fiber; see notes/cuda.md for what that can show and what it cannot.
//
// All names are in lab::cuda_host, where kernels/cuda.cuh puts kernels of this build. Everything
// runs on the thread that launches, one launch at a time.
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <tuple>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define LAB_UNROLL
#define LAB_ROLLED

namespace lab::cuda_host {

// ---- types

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_dim = 1, unsigned y_dim = 1, unsigned z_dim = 1) : x(x_dim), y(y_dim), z(z_dim) {}
  size_t count() const { return size_t{x} * y * z; }
};
struct __attribute__((may_alias, aligned(8))) uint2 {
  unsigned x, y;
};
struct __attribute__((may_alias, aligned(8))) float2 {
  float x, y;
};
struct __attribute__((may_alias, aligned(16))) uint4 {
  unsigned x, y, z, w;
};
struct __attribute__((may_alias, aligned(16))) int4 {
  int x, y, z, w;
};
struct __attribute__((may_alias, aligned(16))) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}
inline uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}
struct __half {
  uint16_t bits;
};

/// Of the thread that runs; set whenever another one begins to.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

// ---- arithmetic

inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline int __float_as_int(float x) {
  return std::bit_cast<int>(x);
}
inline float __uint_as_float(unsigned x) {
  return std::bit_cast<float>(x);
}
inline float __int_as_float(int x) {
  return std::bit_cast<float>(x);
}
inline int __float2int_rn(float x) {
  return static_cast<int>(std::nearbyint(x));
}
inline __half __ushort_as_half(uint16_t bits) {
  return {bits};
}
inline uint16_t __half_as_ushort(__half h) {
  return h.bits;
}
float __half2float(__half h);
__half __float2half_rn(float x);
/// Bytes s of the selector's nibbles of the eight bytes x (0-3) and y (4-7); no sign replication.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t bytes = uint64_t{y} << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i)
    result |= static_cast<unsigned>(bytes >> (8 * (selector >> (4 * i) & 7)) & 0xff) << (8 * i);
  return result;
}
/// c + the products of the four int8 in a and b.
inline int __dp4a(int a, int b, int c) {
  for (int shift = 0; shift < 32; shift += 8)
    c += static_cast<int8_t>(a >> shift) * static_cast<int8_t>(b >> shift);
  return c;
}
inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __ffs(int x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1;
}
template <class T>
T __ldg(const T* p) {
  return *p;
}

// ---- threads

void __syncthreads();

/// What the lanes of a warp do together.
enum class WarpOp { sync, shuffle, ballot, add, min, max, mma };
/// Waits until all lanes of `mask` have come with the same op and mask, then returns this lane's
/// result: of a shuffle the value of lane `source`, of a ballot the lanes with a value other than
/// 0, of add, min and max those of the values as 32-bit unsigned or (is_signed) signed integers; of
/// an mma (the value points to an MmaLane) nothing, but its c is there.
uint64_t WarpExchange(WarpOp op, unsigned mask, uint64_t value, unsigned source = 0,
                      bool is_signed = false);
/// threadIdx as a lane number.
unsigned LaneIndex();

inline void __syncwarp(unsigned mask = 0xffffffff) {
  WarpExchange(WarpOp::sync, mask, 0);
}
template <class T>
T Shuffle(unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = WarpExchange(WarpOp::shuffle, mask, bits, source);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
// Lanes form groups of `width`; one that would read outside its group reads itself.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const unsigned group = LaneIndex() & ~static_cast<unsigned>(width - 1);
  return Shuffle(mask, value, group + static_cast<unsigned>(source & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
  const unsigned lane = LaneIndex(), end = (lane & ~static_cast<unsigned>(width - 1)) + width;
  const unsigned source = lane ^ static_cast<unsigned>(lane_mask);
  return Shuffle(mask, value, source < end ? source : lane);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned lane = LaneIndex(), end = (lane & ~static_cast<unsigned>(width - 1)) + width;
  return Shuffle(mask, value, lane + delta < end ? lane + delta : lane);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned lane = LaneIndex(), begin = lane & ~static_cast<unsigned>(width - 1);
  return Shuffle(mask, value, lane >= begin + delta ? lane - delta : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return static_cast<unsigned>(WarpExchange(WarpOp::ballot, mask, predicate != 0));
}
inline int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == mask;
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned value) {
  return static_cast<unsigned>(WarpExchange(WarpOp::add, mask, value));
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
  return static_cast<unsigned>(WarpExchange(WarpOp::max, mask, value));
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value) {
  return static_cast<unsigned>(WarpExchange(WarpOp::min, mask, value));
}
inline int __reduce_add_sync(unsigned mask, int value) {
  return static_cast<int>(WarpExchange(WarpOp::add, mask, static_cast<unsigned>(value), 0, true));
}
inline int __reduce_max_sync(unsigned mask, int value) {
  return static_cast<int>(WarpExchange(WarpOp::max, mask, static_cast<unsigned>(value), 0, true));
}
inline int __reduce_min_sync(unsigned mask, int value) {
  return static_cast<int>(WarpExchange(WarpOp::min, mask, static_cast<unsigned>(value), 0, true));
}

/// What a lane brings to an mma of 8-bit integers: its fragments, k (32 or 16) and whether the
/// bytes of B are signed.
struct MmaLane {
  const unsigned* a;
  const unsigned* b;
  int* c;
  int k;
  bool b_is_signed;
};
inline void MmaSync(const MmaLane& own) {
  WarpExchange(WarpOp::mma, 0xffffffff, reinterpret_cast<uintptr_t>(&own));
}
/// c += A B with all lanes of the warp, as in kernels/mma.cuh.
inline void Mma(const unsigned (&a)[4], const unsigned (&b)[2], int (&c)[4]) {
  MmaSync({a, b, c, 32, true});
}
inline void Mma(const unsigned (&a)[2], const unsigned (&b)[1], int (&c)[4]) {
  MmaSync({a, b, c, 16, true});
}
inline void MmaUnsigned(const unsigned (&a)[2], const unsigned (&b)[1], int (&c)[4]) {
  MmaSync({a, b, c, 16, false});
}

// Atomics return what was there before.
int atomicAdd(int* p, int value);
unsigned atomicAdd(unsigned* p, unsigned value);
float atomicAdd(float* p, float value);
unsigned atomicMax(unsigned* p, unsigned value);
unsigned atomicExch(unsigned* p, unsigned value);
unsigned atomicCAS(unsigned* p, unsigned compare, unsigned value);
inline void __threadfence() {}

// A copy happens when it is waited for, so reading too early finds what was there before.
void __pipeline_memcpy_async(void* shared, const void* global, size_t bytes);
void __pipeline_commit();
void __pipeline_wait_prior(size_t batches);

/// Kernels run one after the other here; but whoever touched device memory before calling this may
/// have been too early on a GPU, and ends the launch.
void WaitForPrevious();
/// p is in device memory.
void PrefetchWeights(const void* p);
/// A kernel compiled for a CPU has every instruction.
template <class... Params>
int PtxVersion(void (*)(Params...)) {
  return 90;
}

// ---- shared memory

/// The same memory for every thread of the block that comes with this key, 0xff bytes at first.
void* StaticShared(const void* key, size_t bytes, size_t alignment);
void* DynamicSharedBytes();
template <class T>
T* DynamicShared() {
  return static_cast<T*>(DynamicSharedBytes());
}
#define LAB_SHARED(T, name, count)     \
  static const char name##_key = 0;    \
  T(&name)                             \
  [count] = *static_cast<T(*)[count]>( \
      ::lab::cuda_host::StaticShared(&name##_key, sizeof(T[count]), alignof(T)))

// ---- runtime

enum cudaError_t {
  cudaSuccess,
  cudaErrorMemoryAllocation,
  cudaErrorStreamCaptureUnsupported,
  cudaErrorStreamCaptureImplicit,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed };
constexpr unsigned cudaStreamNonBlocking = 1;
using cudaStream_t = struct CUstream_st*;
using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;

const char* cudaGetErrorString(cudaError_t status);
inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}

/// Memory full of 0xff bytes between redzones, which are inspected after every launch.
cudaError_t cudaMalloc(void** p, size_t bytes);
cudaError_t cudaFree(void* p);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
/// How much there is; 1 TiB unless set.
void SetDeviceMemory(size_t bytes);

/// Does the work at once, or puts it into the graph that is being captured.
cudaError_t Enqueue(cudaStream_t stream, std::function<void()> work);
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                                   cudaStream_t stream) {
  return Enqueue(stream, [=] {
    if (bytes > 0) std::memcpy(to, from, bytes);
  });
}
/// Fails while a graph is captured, as on a device.
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                 unsigned long long flags);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);

/// Runs `thread` once for every thread of every block. Throws Error that says what a thread did
/// wrong: a wrong lane mask, a barrier that some do not reach, memory that is not its own.
void RunGrid(dim3 grid, dim3 block, size_t shared, const std::function<void()>& thread);
/// How often it was called.
size_t GridsRun();

/// Chooses the order in which blocks, warps and lanes run from here on. Starts as $LAB_SIMT_SEED,
/// else 1.
void SetScheduleSeed(uint64_t seed);

}  // namespace lab::cuda_host
