#include "lab/aligned.h"

#include <sys/mman.h>

#include <new>

namespace lab {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

std::align_val_t AlignmentOf(size_t bytes) {
  return std::align_val_t{bytes >= kHugePage ? kHugePage : 64};
}

}  // namespace

void* AllocateAligned(size_t bytes) {
  void* p = ::operator new(bytes, AlignmentOf(bytes));
  // A wish: without huge pages the memory is as good, only slower.
  if (bytes >= kHugePage) madvise(p, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return p;
}

void FreeAligned(void* p, size_t bytes) {
  ::operator delete(p, AlignmentOf(bytes));
}

}  // namespace lab
