#pragma once
// Vectors whose memory begins at a multiple of 64 bytes.
#include <cstddef>
#include <vector>

namespace lab {

/// Memory at a multiple of 64 bytes; from 2 MB on at one of 2 MB, in huge pages where the kernel
/// gives them.
void* AllocateAligned(size_t bytes);
void FreeAligned(void* p, size_t bytes);

template <class T>
struct Aligned64 {
  using value_type = T;
  Aligned64() = default;
  template <class U>
  Aligned64(const Aligned64<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(AllocateAligned(n * sizeof(T))); }
  void deallocate(T* p, size_t n) { FreeAligned(p, n * sizeof(T)); }
  bool operator==(const Aligned64&) const = default;
};
template <class T>
using AlignedVector = std::vector<T, Aligned64<T>>;

}  // namespace lab
