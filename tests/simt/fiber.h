#pragma once
// Switching between stacks. Written by hand on x86-64, where ucontext's two system calls a switch
// would make a shuffle a hundred times slower; ucontext elsewhere.
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__) && !defined(LAB_SIMT_UCONTEXT)
extern "C" void lab_simt_switch(void** save, void* load);
#else
#include <ucontext.h>
#endif

namespace lab::cuda_host {

/// Stacks of equal size with an unreadable page below each.
class Stacks {
 public:
  static constexpr size_t kBytes = 256 << 10, kGuard = 4096;

  explicit Stacks(size_t n) : n_(n) {
    memory_ = static_cast<uint8_t*>(mmap(nullptr, n * kBytes, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
    for (size_t i = 0; i < n; ++i) mprotect(memory_ + i * kBytes, kGuard, PROT_NONE);
  }
  ~Stacks() { munmap(memory_, n_ * kBytes); }
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;
  size_t size() const { return n_; }
  uint8_t* bottom(size_t i) const { return memory_ + i * kBytes + kGuard; }
  static constexpr size_t usable() { return kBytes - kGuard; }

 private:
  size_t n_;
  uint8_t* memory_;
};

/// A flow of control with a stack of its own. The one that main() began has no stack here.
class Fiber {
 public:
  Fiber() = default;
  /// Next entered at the start of `entry`, which must never return.
  void Reset(uint8_t* bottom, size_t size, void (*entry)()) {
    bottom_ = bottom;
    size_ = size;
#ifdef __SANITIZE_ADDRESS__
    // Frames that were abandoned have left their poison.
    __asan_unpoison_memory_region(bottom, size);
#endif
    Prepare(entry);
  }
  /// Stops here and goes on in `to`. Returns when somebody switches back.
  void SwitchTo(Fiber& to) {
#ifdef __SANITIZE_ADDRESS__
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, to.bottom_, to.size_);
    Jump(to);
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
    Jump(to);
#endif
  }
  /// To be called first by an entry: `from` is who switched to it, whose stack is learned here.
  static void Entered([[maybe_unused]] Fiber& from) {
#ifdef __SANITIZE_ADDRESS__
    const void* bottom;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &from.size_);
    from.bottom_ = static_cast<uint8_t*>(const_cast<void*>(bottom));
#endif
  }
  bool Holds(const void* p) const {
    return static_cast<size_t>(static_cast<const uint8_t*>(p) - bottom_) < size_;
  }

 private:
#if defined(__x86_64__) && !defined(LAB_SIMT_UCONTEXT)
  // Six callee-saved registers, then where to go on; behind it the return address of nobody.
  void Prepare(void (*entry)()) {
    auto* top = reinterpret_cast<void**>(bottom_ + size_) - 8;
    for (int i = 0; i < 6; ++i) top[i] = nullptr;
    top[6] = reinterpret_cast<void*>(entry);
    top[7] = nullptr;
    saved_ = top;
  }
  void Jump(Fiber& to) {
    lab_simt_switch(&saved_, to.saved_);
  }
  void* saved_ = nullptr;
#else
  void Prepare(void (*entry)()) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = bottom_;
    context_.uc_stack.ss_size = size_;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
  }
  void Jump(Fiber& to) {
    swapcontext(&context_, &to.context_);
  }
  ucontext_t context_ = {};
#endif
  uint8_t* bottom_ = nullptr;
  size_t size_ = 0;
};

}  // namespace lab::cuda_host
