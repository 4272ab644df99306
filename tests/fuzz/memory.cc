#include "tests/fuzz/memory.h"

#include <algorithm>

// g++ does not ship the header of the hooks.
#if defined(__clang__) && defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LAB_COUNTS_MEMORY 1
#endif
#endif

#if LAB_COUNTS_MEMORY
#include <sanitizer/allocator_interface.h>
#endif

namespace lab::fuzz {
namespace {

thread_local long long held = 0, most = 0;

#if LAB_COUNTS_MEMORY
void Allocated(const volatile void*, size_t size) {
  held += static_cast<long long>(size);
  most = std::max(most, held);
}

void Freed(const volatile void* memory) {
  if (memory) held -= static_cast<long long>(__sanitizer_get_allocated_size(memory));
}

const int installed = __sanitizer_install_malloc_and_free_hooks(Allocated, Freed);
#endif

}  // namespace

PeakMeter::PeakMeter() {
  held = most = 0;
}

size_t PeakMeter::peak() const {
  return static_cast<size_t>(most);
}

}  // namespace lab::fuzz
