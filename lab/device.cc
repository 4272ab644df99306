#include "lab/device.h"

#include "kernels/device_error.h"
#include "lab/error.h"

#if LAB_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace lab {
namespace cuda {
std::unique_ptr<DevicePass> MakeDevicePass();
double CopyRate();
}  // namespace cuda
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
    state.devices.push_back({p.name, p.major, p.minor, p.multiProcessorCount, p.totalGlobalMem,
                             free, static_cast<size_t>(p.l2CacheSize)});
  }
  if (!state.devices.empty()) {
    cudaSetDevice(0);
    constexpr int kBuilt[] = {LAB_CUDA_SM_NUMBERS};
    state.problem = WhyNotOn(state.devices[0], kBuilt);
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

std::string WhyNotOn(const CudaDevice& device, std::span<const int> built) {
  const int sm = 10 * device.major + device.minor;
  const bool runs = sm >= built.back() || std::any_of(built.begin(), built.end(), [&](int number) {
                      return number / 10 == device.major && number <= sm;
                    });
  if (runs) return "";
  return fmt::format(
      "device 0 ({}) is sm_{}, and the kernels are built for sm_{} + PTX; configure with "
      "-DLAB_CUDA_ARCHITECTURES={}",
      device.name, sm, fmt::join(built, " sm_"), sm);
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

double DeviceCopyRate() {
  if (!Cuda().problem.empty()) throw Error(kCannotRun, Cuda().problem);
#if LAB_WITH_CUDA
  return cuda::CopyRate();
#else
  return 0;
#endif
}

std::string CudaText() {
  const CudaState& cuda = Cuda();
  if (!cuda.built) return cuda.problem;
  return fmt::format(
      "{}; {}; {}", cuda.runtime, cuda.driver.empty() ? "no driver" : "driver " + cuda.driver,
      cuda.devices.empty() ? cuda.problem : fmt::format("{} device(s)", cuda.devices.size()));
}

void ThrowDeviceError(const std::string& what, const std::string& why, bool cannot_run) {
  throw Error(cannot_run ? kCannotRun : kInternal, fmt::format("{}: {}", what, why));
}

}  // namespace lab
