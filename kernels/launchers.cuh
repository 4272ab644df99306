#pragma once
// The launchers: every op on arguments whose pointers are device pointers, enqueued on a stream.
// Formula, shapes and aliasing are those of the op's header. Buffers begin at a multiple of 16
// bytes; weights have the layout of kernels/device_weights.h and are whole matrices. Nothing is
// waited for, allocated or copied, so a stream that is being captured takes them. They throw Error
// where a launch fails.
#include "kernels/cuda.cuh"
#include "kernels/residual_add.h"
#include "kernels/silu.h"
#include "kernels/swiglu.h"

namespace lab::LAB_CUDA_NAMESPACE {

void LaunchResidualAdd(const ResidualAddArgs<float>& a, cudaStream_t stream);
void LaunchSilu(const SiluArgs<float>& a, cudaStream_t stream);
void LaunchSwiglu(const SwigluArgs<float>& a, cudaStream_t stream);

}  // namespace lab::LAB_CUDA_NAMESPACE
