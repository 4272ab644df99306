#pragma once
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

}  // namespace lab
