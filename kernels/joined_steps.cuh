#pragma once
// Steps of a pass that follow each other share a launch where there is a kernel for them: a step
// waits until the next one is known. The results have the same bits, and whoever looks at the
// device (a tap, a copy, a clock, the end of a graph) first has what waits launched.
#include <variant>

#include "kernels/launchers.cuh"

namespace lab::LAB_CUDA_NAMESPACE {

/// A step that may share a launch, on device pointers.
using JoinableStep = std::variant<RmsNormArgs<float>, QuantizeArgs<float>, MatvecArgs<float>,
                                  ResidualAddArgs<float>, RopeArgs<float>, KvStoreArgs<float>>;

/// Takes a step on DeviceStream, after all before it. Throws Error where what waited fails.
void LaunchLater(const JoinableStep& step);
/// Launches what waits. To be called before anything else is put on DeviceStream.
void LaunchWaiting();
/// What waits is never launched: its buffers go.
void ForgetWaiting();

}  // namespace lab::LAB_CUDA_NAMESPACE
