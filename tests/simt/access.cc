// Every load and store of a kernel, as compute-sanitizer sees them on a GPU: outside its buffers
// (memcheck), of shared memory that nobody has written (initcheck), of what another thread writes
// or wrote with no barrier between the two (racecheck). The kernels are compiled with
// -fsanitize=thread, whose calls end up here.
//
// Epochs rise with every barrier, of the block and of each warp. Two accesses by different threads
// are ordered if a barrier of the block lies between them, or they are in one warp and a __syncwarp
// does. Atomics are no accesses. An asynchronous copy may write at any time from its call to the
// wait.
#include <algorithm>

#include "tests/simt/engine.h"

// Where the linker put code and static data.
extern "C" const uint8_t __executable_start[], _end[];

namespace lab::cuda_host {
namespace {

constexpr uint16_t kMany = 0xffff;
constexpr unsigned kWarp = 32;

struct SharedByte {
  unsigned write_epoch, write_warp_epoch, read_epoch, read_warp_epoch;
  unsigned copy_epoch;                   // when a copy began that was not waited for; or 0
  uint16_t writer, reader, reader_warp;  // kMany: several
};
SharedByte shared_bytes[kMostShared];
unsigned first_epoch_of_launch = 0, first_epoch_of_block = 0;

struct Device {
  uint8_t* base = nullptr;
  Allocation* allocation = nullptr;
};
// By thread: the epoch in which its block began, if it has touched device memory.
unsigned touched_device[1024];
Device last_device;  // forgotten at every launch, since buffers come and go between them

struct Access {
  const uint8_t* p;
  size_t bytes;
  bool is_write;
  uint16_t thread, warp;
  bool begins_copy = false;  // a write that is yet to come

  const char* verb() const { return is_write ? "writes" : "reads"; }
};

[[noreturn]] void Race(const Access& a, const char* memory, unsigned other, const char* did) {
  if (other == kMany)
    Fault("race: {} {} memory that several threads {} since the last barrier", a.verb(), memory,
          did);
  Fault("race: {} {} memory that thread {} {} since the last barrier", a.verb(), memory, other,
        did);
}

// Whether an access by thread `other` in this epoch of the block may happen at the same time.
bool AtOnce(const Access& a, unsigned other, unsigned other_warp_epoch) {
  if (other == a.thread) return false;
  return other / kWarp != a.warp || other_warp_epoch == warp_epochs[a.warp];
}

void NoteRead(const Access& a, SharedByte& byte) {
  const unsigned warp_epoch = warp_epochs[a.warp];
  if (byte.read_epoch != block_epoch) {
    byte.reader = a.thread;
    byte.reader_warp = a.warp;
  } else if (byte.reader_warp != a.warp) {
    byte.reader = byte.reader_warp = kMany;
  } else if (byte.read_warp_epoch != warp_epoch) {
    byte.reader = a.thread;
  } else if (byte.reader != a.thread) {
    byte.reader = kMany;
  }
  byte.read_epoch = block_epoch;
  byte.read_warp_epoch = warp_epoch;
}

void CheckShared(const Access& a) {
  const auto arrays = SharedArrays();
  const bool inside = std::any_of(arrays.begin(), arrays.end(), [&](const SharedArray& array) {
    return a.p >= array.at && a.p + a.bytes <= array.at + array.bytes;
  });
  if (!inside) Fault("{} {} bytes outside its shared arrays", a.verb(), a.bytes);
  for (size_t i = 0; i < a.bytes; ++i) {
    SharedByte& byte = shared_bytes[a.p + i - SharedMemory()];
    const bool written = byte.write_epoch >= first_epoch_of_block;
    if (byte.write_epoch == block_epoch && AtOnce(a, byte.writer, byte.write_warp_epoch))
      Race(a, "shared", byte.writer, "wrote");
    if (!a.is_write && !written) Fault("reads shared memory that no thread has written");
    if ((!a.is_write || a.begins_copy) && byte.copy_epoch >= first_epoch_of_block)
      Fault("race: {} shared memory that an asynchronous copy is still to write", a.verb());
    if (!a.is_write) {
      NoteRead(a, byte);
      continue;
    }
    const bool read_by_others =
        byte.read_epoch == block_epoch && byte.reader != a.thread &&
        (byte.reader_warp != a.warp || byte.read_warp_epoch == warp_epochs[a.warp]);
    if (read_by_others) Race(a, "shared", byte.reader, "read");
    byte.copy_epoch = a.begins_copy ? block_epoch : 0;
    if (a.begins_copy) continue;
    byte.write_epoch = block_epoch;
    byte.write_warp_epoch = warp_epochs[a.warp];
    byte.writer = a.thread;
  }
}

// Writes are remembered, reads are not: a write over what another thread reads goes unnoticed.
// Blocks may read what others wrote (behind a fence and an atomic), but not write it again.
void CheckGlobal(const Access& a, uint8_t* base, Allocation& allocation) {
  const auto begin = static_cast<size_t>(a.p - base), end = begin + a.bytes;
  if (a.is_write && allocation.words.empty()) allocation.words.resize(allocation.bytes / 4 + 1);
  if (allocation.words.empty()) return;
  for (size_t w = begin / 4; w <= (end - 1) / 4; ++w) {
    GlobalWord& word = allocation.words[w];
    const size_t first = std::max(begin, w * 4) - w * 4, last = std::min(end, w * 4 + 4) - w * 4;
    const auto bytes = static_cast<uint8_t>((1u << last) - (1u << first));
    if (word.bytes & bytes) {
      if (word.block_epoch == block_epoch && AtOnce(a, word.thread, word.warp_epoch))
        Race(a, "device", word.thread, "wrote");
      const bool by_other_block =
          word.block_epoch >= first_epoch_of_launch && word.block_epoch < first_epoch_of_block;
      if (a.is_write && by_other_block)
        Fault("race: writes device memory that another block of the launch wrote");
    }
    if (!a.is_write) continue;
    const bool same = word.block_epoch == block_epoch && word.thread == a.thread;
    word = {block_epoch, warp_epochs[a.warp], a.thread,
            static_cast<uint8_t>(same ? word.bytes | bytes : bytes)};
  }
}

// The device buffer that p is in, up to a redzone before or a block of threads behind, or null.
// Neighbouring accesses are mostly to the same one.
const Device* FindDevice(const uint8_t* p) {
  Device& last = last_device;
  if (last.allocation && p >= last.base && p < last.base + last.allocation->bytes) return &last;
  auto next = Allocations().upper_bound(const_cast<uint8_t*>(p) + kRedzone);
  if (next == Allocations().begin()) return nullptr;
  --next;
  constexpr size_t kBlockOfVectors = 1024 * 16;  // what an unmasked tail reaches
  if (p >= next->first + next->second.bytes + kBlockOfVectors) return nullptr;
  last = {next->first, &next->second};
  return &last;
}

bool IsShared(const uint8_t* p) {
  return p >= SharedMemory() && p < SharedMemory() + kMostShared;
}
bool IsStatic(const uint8_t* p) {
  return p >= __executable_start && p < _end;
}

Access AccessBy(const uint8_t* p, size_t bytes, bool is_write) {
  const auto thread = static_cast<uint16_t>(ThreadNumber());
  return {p, bytes, is_write, thread, static_cast<uint16_t>(thread / kWarp)};
}

void CheckKernelAccess(const void* where, size_t bytes, bool is_write) {
  const auto* p = static_cast<const uint8_t*>(where);
  const Access a = AccessBy(p, bytes, is_write);
  if (IsShared(p)) return CheckShared(a);
  if (const Device* d = FindDevice(p)) {
    touched_device[a.thread] = first_epoch_of_block;
    const size_t size = d->allocation->bytes;
    if (p >= d->base && p + bytes <= d->base + size) return CheckGlobal(a, d->base, *d->allocation);
    Fault("{} {} bytes {} a device buffer of {} bytes", a.verb(), bytes,
          p < d->base ? "before" : "behind", size);
  }
  if (!IsStatic(p) && !OnLaunchingStack(p))
    Fault("{} {} bytes of memory that is not the device's", a.verb(), bytes);
}

}  // namespace

void CheckAccess(const void* where, size_t bytes, bool is_write) {
  if (checks_off || !InKernel() || OnOwnStack(where)) return;
  checks_off = true;
  CheckKernelAccess(where, bytes, is_write);
  checks_off = false;
}

void CheckCopyBegins(const void* to, const void* from, size_t bytes) {
  const bool can = bytes == 4 || bytes == 8 || bytes == 16;
  if (!can || reinterpret_cast<uintptr_t>(to) % bytes || reinterpret_cast<uintptr_t>(from) % bytes)
    Fault("an asynchronous copy of {} bytes: 4, 8 or 16 are possible, aligned to as many", bytes);
  Access a = AccessBy(static_cast<const uint8_t*>(to), bytes, true);
  if (!IsShared(a.p)) Fault("an asynchronous copy to memory that is not shared");
  a.begins_copy = true;
  CheckShared(a);
}

void WaitForPrevious() {
  if (touched_device[ThreadNumber()] == first_epoch_of_block)
    Fault("touched device memory before it waited for the kernel before");
}

void PrefetchWeights(const void* where) {
  const auto* p = static_cast<const uint8_t*>(where);
  const Device* const d = FindDevice(p);
  if (!d || p < d->base || p >= d->base + d->allocation->bytes)
    Fault("prefetches what is in no device buffer");
}

void BeginLaunchOfAccesses() {
  first_epoch_of_launch = block_epoch + 1;
  last_device = {};
}
void BeginBlockOfAccesses() {
  first_epoch_of_block = block_epoch;
}

}  // namespace lab::cuda_host

#define LAB_ACCESS(bytes)                         \
  void __tsan_read##bytes(void* p) {              \
    lab::cuda_host::CheckAccess(p, bytes, false); \
  }                                               \
  void __tsan_write##bytes(void* p) {             \
    lab::cuda_host::CheckAccess(p, bytes, true);  \
  }                                               \
  void __tsan_unaligned_read##bytes(void* p) {    \
    lab::cuda_host::CheckAccess(p, bytes, false); \
  }                                               \
  void __tsan_unaligned_write##bytes(void* p) {   \
    lab::cuda_host::CheckAccess(p, bytes, true);  \
  }
extern "C" {
void __tsan_init() {}
// Of host code in the same files.
void __tsan_vptr_update(void**, void*) {}
int __tsan_atomic32_fetch_add(volatile int* p, int value, int) {
  return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);
}
int __tsan_atomic32_load(const volatile int* p, int) {
  return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
int __tsan_atomic32_compare_exchange_weak(volatile int* p, int* expected, int value, int, int) {
  return __atomic_compare_exchange_n(p, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
void __tsan_read_range(void* p, size_t n) {
  lab::cuda_host::CheckAccess(p, n, false);
}
void __tsan_write_range(void* p, size_t n) {
  lab::cuda_host::CheckAccess(p, n, true);
}
LAB_ACCESS(1)
LAB_ACCESS(2)
LAB_ACCESS(4)
LAB_ACCESS(8)
LAB_ACCESS(16)
}
