#pragma once
// The language that kernels are written in: CUDA where nvcc compiles this file, the SIMT layer of
// the tests where a host compiler does. Both builds go into one binary, so everything in a .cu or
// .cuh file lies in namespace lab::LAB_CUDA_NAMESPACE: cuda here, cuda_host there.
#ifdef __CUDACC__
#include <cuda_fp16.h>
#include <cuda_pipeline_primitives.h>
#include <cuda_runtime.h>

#define LAB_CUDA_NAMESPACE cuda
/// An array in the shared memory of a block, not initialised.
#define LAB_SHARED(T, name, count) __shared__ T name[count]
/// Before a loop whose arrays are to stay in registers.
#define LAB_UNROLL _Pragma("unroll")
/// Before a loop that is to stay one.
#define LAB_ROLLED _Pragma("unroll 1")
/// An instruction of PTX that sm_80 brought, as in asm volatile. In a kernel compiled for less it
/// is a trap: who launches it asks first what the kernel was compiled for.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define LAB_PTX_SM80(...) __trap()
#else
#define LAB_PTX_SM80(...) asm volatile(__VA_ARGS__)
#endif
#else
#include "tests/simt/simt.h"
#define LAB_CUDA_NAMESPACE cuda_host
#endif

#include <cstddef>
#include <string>

#include "kernels/device_error.h"

namespace lab::LAB_CUDA_NAMESPACE {

/// Throws Error where a call of the runtime failed; `what` says what was tried.
inline void CheckCuda(cudaError_t status, const std::string& what) {
  if (status != cudaSuccess)
    ThrowDeviceError(what, cudaGetErrorString(status), status == cudaErrorMemoryAllocation);
}

#ifdef __CUDACC__
/// The shared memory whose size the launch said, aligned to 16 bytes.
template <class T>
__device__ T* DynamicShared() {
  extern __shared__ uint4 dynamic_shared[];
  return reinterpret_cast<T*>(dynamic_shared);
}

/// To be called by all threads of a kernel before anything but PrefetchWeights: lets the next
/// kernel of the stream begin, and waits until the one before has ended and what it wrote can be
/// read. So the blocks of a kernel take the places that those of the one before leave, and have
/// their weights on the way when it ends.
__device__ inline void WaitForPrevious() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n\tgriddepcontrol.wait;" ::: "memory");
#endif
}
/// Asks for the line of p, which no kernel writes.
__device__ inline void PrefetchWeights(const void* p) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

/// The version of PTX for which the device's code of a kernel was compiled: 90 for sm_90.
template <class... Params>
int PtxVersion(void (*kernel)(Params...)) {
  cudaFuncAttributes attributes;
  CheckCuda(cudaFuncGetAttributes(&attributes, kernel), "asking what a kernel was compiled for");
  return attributes.ptxVersion;
}

/// kernel<<<grid, block, shared, stream>>>(args...): the only way kernels are launched. Where
/// WaitForPrevious is more than nothing, a kernel may begin before the one before has ended
/// (programmatic dependent launch). Throws Error.
template <class... Params, class... Args>
void Launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
            const Args&... args) {
  constexpr size_t kWithoutAsking = 48 << 10;
  if (shared > kWithoutAsking)
    CheckCuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared)),
              std::to_string(shared) + " bytes of shared memory");
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  const unsigned attributes = PtxVersion(kernel) >= 90 ? 1 : 0;
  const cudaLaunchConfig_t config = {grid, block, shared, stream, &early, attributes};
  CheckCuda(cudaLaunchKernelEx(&config, kernel, args...), "kernel launch");
}
#else
template <class... Params, class... Args>
void Launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
            const Args&... args) {
  const std::tuple<Params...> bound(args...);
  const auto run = [=] {
    // On the stack, where threads may read them.
    const auto entry = kernel;
    const std::tuple<Params...> params = bound;
    RunGrid(grid, block, shared, [&] { std::apply(entry, params); });
  };
  CheckCuda(Enqueue(stream, run), "kernel launch");
}
#endif

template <class T>
__device__ T AtMost(T x, T limit) {
  return x < limit ? x : limit;
}
template <class T>
__device__ T AtLeast(T x, T limit) {
  return x > limit ? x : limit;
}

/// Blocks of `size` that hold n threads.
inline unsigned BlocksFor(size_t n, size_t size) {
  return static_cast<unsigned>((n + size - 1) / size);
}

}  // namespace lab::LAB_CUDA_NAMESPACE

#ifdef __CUDACC__
#include "kernels/mma.cuh"
#endif
