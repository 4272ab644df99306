#pragma once
// Memory that begins at a multiple of 64 bytes.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace lab {

/// Memory at a multiple of 64 bytes; from 2 MB on at one of 2 MB, in huge pages where the kernel
/// gives them.
void* AllocateAligned(size_t bytes);
void FreeAligned(void* p, size_t bytes);

/// Such memory, not initialised.
class AlignedBytes {
 public:
  explicit AlignedBytes(size_t n = 0) : data_(static_cast<uint8_t*>(AllocateAligned(n)), Free{n}) {}
  uint8_t* data() { return data_.get(); }

 private:
  struct Free {
    size_t n;
    void operator()(uint8_t* p) const { FreeAligned(p, n); }
  };
  std::unique_ptr<uint8_t, Free> data_;
};

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
