// Device and shared memory of the SIMT layer.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <vector>

#include "kernels/half.h"
#include "tests/simt/engine.h"

namespace lab::cuda_host {
namespace {

constexpr uint8_t kGarbage = 0xff;  // NaN as floats and halves
// Not garbage, since what a kernel makes of a NaN that it read there may be the same NaN.
constexpr uint8_t kRed = 0xfd;

bool IsRed(const uint8_t* p, size_t n) {
  return std::all_of(p, p + n, [](uint8_t byte) { return byte == kRed; });
}

size_t device_memory = size_t{1} << 40, device_used = 0;

alignas(256) uint8_t shared[kMostShared];
size_t shared_used = 0;
std::vector<SharedArray> shared_arrays;

}  // namespace

std::map<uint8_t*, Allocation>& Allocations() {
  static std::map<uint8_t*, Allocation> allocations;
  return allocations;
}
std::span<const SharedArray> SharedArrays() {
  return shared_arrays;
}
uint8_t* SharedMemory() {
  return shared;
}

void SetDeviceMemory(size_t bytes) {
  device_memory = bytes;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = device_memory - std::min(device_memory, device_used);
  *total = device_memory;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** p, size_t bytes) {
  if (device_used + bytes > device_memory) return cudaErrorMemoryAllocation;
  auto* memory =
      static_cast<uint8_t*>(std::aligned_alloc(256, (bytes + 3 * kRedzone - 1) & ~size_t{255}));
  if (!memory) return cudaErrorMemoryAllocation;
  std::memset(memory, kRed, kRedzone + bytes + kRedzone);
  std::memset(memory + kRedzone, kGarbage, bytes);
  Allocations()[memory + kRedzone] = {bytes, {}};
  device_used += bytes;
  *p = memory + kRedzone;
  return cudaSuccess;
}

cudaError_t cudaFree(void* p) {
  if (!p) return cudaSuccess;
  auto* first = static_cast<uint8_t*>(p);
  const auto it = Allocations().find(first);
  device_used -= it->second.bytes;
  Allocations().erase(it);
  std::free(first - kRedzone);
  return cudaSuccess;
}

std::string DamagedRedzone() {
  for (const auto& [p, allocation] : Allocations()) {
    const size_t bytes = allocation.bytes;
    const bool before = !IsRed(p - kRedzone, kRedzone);
    if (!before && IsRed(p + bytes, kRedzone)) continue;
    std::memset(p - kRedzone, kRed, kRedzone);  // one fault, one complaint
    std::memset(p + bytes, kRed, kRedzone);
    return fmt::format("wrote {} a device buffer of {} bytes", before ? "before" : "behind", bytes);
  }
  return "";
}

void BeginLaunch() {
  std::memset(shared, kRed, kMostShared);
  BeginLaunchOfAccesses();
}

void BeginBlock(size_t dynamic_shared) {
  std::memset(shared, kRed, std::min(shared_used + kSharedRedzone, kMostShared));
  std::memset(shared, kGarbage, dynamic_shared);
  shared_arrays = {{nullptr, shared, dynamic_shared}};
  shared_used = dynamic_shared;
  BeginBlockOfAccesses();
}

std::string DamagedShared() {
  for (const SharedArray& array : shared_arrays) {
    const uint8_t* end = array.at + array.bytes;
    const auto left = static_cast<size_t>(shared + kMostShared - end);
    if (!IsRed(end, std::min(left, kSharedRedzone)))
      return fmt::format("wrote behind a shared array of {} bytes", array.bytes);
  }
  return "";
}

void* DynamicSharedBytes() {
  return shared;
}

void* StaticShared(const void* key, size_t bytes, size_t alignment) {
  for (const SharedArray& array : shared_arrays)
    if (array.key == key) return array.at;
  const size_t begin = (shared_used + kSharedRedzone + alignment - 1) / alignment * alignment;
  if (begin + bytes > kMostShared) Fault("more shared memory than a block can have");
  shared_arrays.push_back({key, shared + begin, bytes});
  shared_used = begin + bytes;
  std::memset(shared + begin, kGarbage, bytes);
  return shared + begin;
}

int atomicAdd(int* p, int value) {
  const int before = *p;
  *p = static_cast<int>(static_cast<unsigned>(before) + static_cast<unsigned>(value));
  return before;
}
unsigned atomicAdd(unsigned* p, unsigned value) {
  const unsigned before = *p;
  *p = before + value;
  return before;
}
float atomicAdd(float* p, float value) {
  const float before = *p;
  *p = before + value;
  return before;
}
unsigned atomicMax(unsigned* p, unsigned value) {
  const unsigned before = *p;
  *p = std::max(before, value);
  return before;
}
unsigned atomicExch(unsigned* p, unsigned value) {
  const unsigned before = *p;
  *p = value;
  return before;
}
unsigned atomicCAS(unsigned* p, unsigned compare, unsigned value) {
  const unsigned before = *p;
  if (before == compare) *p = value;
  return before;
}

float __half2float(__half h) {
  const unsigned sign = (h.bits & 0x8000u) << 16, magnitude = h.bits & 0x7fffu;
  // Exponent and mantissa as a float that is 2^112 times too small; the product is exact.
  float value = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  if (magnitude >= 0x7c00) value = std::bit_cast<float>(0x7f800000u | magnitude << 13);
  return std::bit_cast<float>(std::bit_cast<unsigned>(value) | sign);
}
__half __float2half_rn(float x) {
  return {FloatToHalf(x)};
}

}  // namespace lab::cuda_host
