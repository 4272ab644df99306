#pragma once
// The CUDA devices of this machine, and which rows can run here.
#include <string>
#include <vector>

#include "kernels/device_pass.h"
#include "lab/registry.h"

namespace lab {

struct CudaDevice {
  std::string name;
  int major, minor;  ///< compute capability
  int multiprocessors;
  size_t memory, free;  ///< bytes
  size_t cache;         ///< bytes of L2
};

struct CudaState {
  bool built;           ///< whether this binary has CUDA kernels
  std::string runtime;  ///< version that they were built with, "13.0"; architectures behind it
  std::string driver;   ///< newest version that the driver knows; "" without a driver
  std::vector<CudaDevice> devices;
  std::string problem;  ///< why no CUDA row can run here: "not built", "no device: ...", or ""
};

/// Asked of the driver once.
const CudaState& Cuda();

/// Why a row cannot run here ("not built", "no device: no CUDA-capable device is detected"), or "".
std::string WhyNotHere(const Row& row);

/// Why kernels built for the rising sm numbers `built` cannot run on a device, or "": they run on
/// those of the same major and no lower minor, and, as PTX, on all above the last number.
std::string WhyNotOn(const CudaDevice& device, std::span<const int> built);

/// For a pass whose rows are those of a backend on a device; null for other backends.
std::unique_ptr<DevicePass> MakeDevicePass(Backend backend);

/// Bytes that a copy within the memory of device 0 reads and writes in a second, measured. Throws
/// Error where there is no device.
double DeviceCopyRate();

/// For people: "13.0, sm_90 + PTX; driver 13.0; 1 device" or "not built".
std::string CudaText();

}  // namespace lab
