#include "lab/device.h"

#include "kernels/device_error.h"
#include "lab/error.h"

#if LAB_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace lab {
namespace cuda {
std::unique_ptr<DevicePass> MakeDevicePass();
}
namespace cuda_host {
std::unique_ptr<DevicePass> MakeDevicePass();
}
namespace {

#if LAB_WITH_CUDA
std::string VersionText(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

CudaState AskDriver() {
  CudaState state = {true, VersionText(CUDART_VERSION) + ", " LAB_CUDA_ARCHITECTURES, "", {}, ""};
  int driver = 0, count = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0)
    state.driver = VersionText(driver);
  const cudaError_t status = cudaGetDeviceCount(&count);
  // Without a driver the runtime calls it too old.
  if (status != cudaSuccess)
    state.problem = state.driver.empty() ? "no CUDA driver" : cudaGetErrorString(status);
  for (int i = 0; i < count && status == cudaSuccess; ++i) {
    cudaDeviceProp p;
    size_t free = 0, total = 0;
    if (cudaGetDeviceProperties(&p, i) != cudaSuccess) continue;
    if (cudaSetDevice(i) == cudaSuccess) cudaMemGetInfo(&free, &total);
    state.devices.push_back(
        {p.name, p.major, p.minor, p.multiProcessorCount, p.totalGlobalMem, free});
  }
  if (!state.devices.empty()) {
    cudaSetDevice(0);
    constexpr int kBuilt[] = {LAB_CUDA_SM_NUMBERS};
    const CudaDevice& d = state.devices[0];
    if (!RunsOn(10 * d.major + d.minor, kBuilt))
      state.problem = fmt::format(
          "device 0 ({}) is sm_{}{}, and the kernels are built for {}; configure with "
          "-DLAB_CUDA_ARCHITECTURES={}{}",
          d.name, d.major, d.minor, LAB_CUDA_ARCHITECTURES, d.major, d.minor);
  }
  if (state.devices.empty())
    state.problem = "no device" + (state.problem.empty() ? "" : ": " + state.problem);
  return state;
}
#else
CudaState AskDriver() {
  return {false, "", "", {}, "not built"};
}
#endif

}  // namespace

const CudaState& Cuda() {
  static const CudaState kState = AskDriver();
  return kState;
}

std::string WhyNotHere(const Row& row) {
  if (!row.run) return "not built";
  return row.backend == Backend::cuda ? Cuda().problem : "";
}

bool RunsOn(int sm, std::span<const int> built) {
  return sm >= built.back() || std::any_of(built.begin(), built.end(), [&](int number) {
           return number / 10 == sm / 10 && number <= sm;
         });
}

std::unique_ptr<DevicePass> MakeDevicePass([[maybe_unused]] Backend backend) {
#if LAB_WITH_CUDA
  if (backend == Backend::cuda) return cuda::MakeDevicePass();
#endif
#if LAB_WITH_CUDA_HOST
  if (backend == Backend::cuda_host) return cuda_host::MakeDevicePass();
#endif
  return nullptr;
}

std::string CudaText() {
  const CudaState& cuda = Cuda();
  if (!cuda.built) return cuda.problem;
  return fmt::format(
      "{}; {}; {}", cuda.runtime, cuda.driver.empty() ? "no driver" : "driver " + cuda.driver,
      cuda.devices.empty() ? cuda.problem : fmt::format("{} device(s)", cuda.devices.size()));
}

void ThrowDeviceError(const std::string& what, const std::string& why, bool out_of_memory) {
  throw Error(out_of_memory ? kCannotRun : kInternal, fmt::format("{}: {}", what, why));
}

}  // namespace lab
