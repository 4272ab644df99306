#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <type_traits>

namespace lab {

/// The cores this process may use.
int DefaultThreads();

/// Calls fn(0) .. fn(n - 1), each on a thread of its own (0 on the caller's), and returns when all
/// are done. Threads are kept. fn must not throw. One caller at a time. Throws Error (exit 125),
/// with nothing called, when the system gives no more threads.
/// Not OpenMP: libgomp's threads spin at a barrier while another process has their core, which made
/// a 0.07 s run take 3.3 s beside a compiler. These spin for about 20 us, then sleep.
void ParallelCall(int n, void (*fn)(void* context, int i), void* context);

template <class F>
void ParallelFor(int n, F&& fn) {
  using Fn = std::remove_reference_t<F>;
  ParallelCall(
      n, [](void* context, int i) { (*static_cast<Fn*>(context))(i); }, &fn);
}

/// Calls fn(0) .. fn(n - 1), on at most `threads` threads: one that is done takes the next, so that
/// a core that is slowed down by others keeps nobody waiting for long. As ParallelCall otherwise.
template <class F>
void ParallelEach(size_t n, size_t threads, F&& fn) {
  std::atomic<size_t> next = 0;
  ParallelFor(static_cast<int>(std::min(threads, n)), [&](int) {
    for (size_t i; (i = next++) < n;) fn(i);
  });
}

}  // namespace lab
