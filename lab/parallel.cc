#include "lab/parallel.h"

#include <sched.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <system_error>
#include <thread>

#include "lab/error.h"

namespace lab {
namespace {

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until `word` is no longer `old`: awake for a moment, because the next step of a pass
// usually comes within microseconds, then asleep.
void WaitWhileEqual(const std::atomic<uint32_t>& word, uint32_t old, bool spin) {
  constexpr int kSpins = 1000;  // about 20 us at 40 to 60 cycles a pause
  for (int i = 0; spin && i < kSpins; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  word.wait(old, std::memory_order_acquire);
}

class Pool {
 public:
  ~Pool() {
    stop_ = true;
    for (Worker& w : workers_) Wake(w);
    for (Worker& w : workers_) w.thread.join();
  }

  void Call(int n, void (*fn)(void*, int), void* context) {
    while (static_cast<int>(workers_.size()) < n - 1) Grow();
    fn_ = fn;
    context_ = context;
    // More threads than cores gain nothing from spinning: they would keep each other off.
    spin_.store(n <= cores_, std::memory_order_relaxed);
    pending_.store(static_cast<uint32_t>(n - 1), std::memory_order_relaxed);
    for (int i = 0; i < n - 1; ++i) Wake(workers_[static_cast<size_t>(i)]);
    fn(context, 0);
    for (uint32_t left; (left = pending_.load(std::memory_order_acquire)) != 0;)
      WaitWhileEqual(pending_, left, n <= cores_);
  }

 private:
  struct Worker {
    std::atomic<uint32_t> ticket{0};  // one more for each call that this worker takes part in
    std::thread thread;
  };

  static void Wake(Worker& w) {
    w.ticket.fetch_add(1, std::memory_order_release);
    w.ticket.notify_one();
  }

  void Grow() {
    Worker& w = workers_.emplace_back();
    const int index = static_cast<int>(workers_.size());
    try {
      w.thread = std::thread([this, &w, index] { Serve(w, index); });
    } catch (const std::system_error& error) {
      workers_.pop_back();
      throw Error(kCannotRun, fmt::format("cannot start thread {}: {}; --threads {} would do",
                                          index + 1, error.code().message(), index));
    }
  }

  void Serve(Worker& w, int index) {
    for (uint32_t seen = 0;;) {
      WaitWhileEqual(w.ticket, seen, spin_.load(std::memory_order_relaxed));
      if (w.ticket.load(std::memory_order_acquire) == seen) continue;
      if (stop_) return;
      ++seen;
      fn_(context_, index);
      if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
    }
  }

  const int cores_ = DefaultThreads();
  std::deque<Worker> workers_;  // a deque never moves them
  void (*fn_)(void*, int) = nullptr;
  void* context_ = nullptr;
  std::atomic<uint32_t> pending_{0};
  std::atomic<bool> spin_{true}, stop_{false};
};

}  // namespace

int DefaultThreads() {
  cpu_set_t set;
  const int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return n < 1 ? 1 : n;
}

void ParallelCall(int n, void (*fn)(void*, int), void* context) {
  static Pool pool;
  if (n == 1) return fn(context, 0);
  if (n > 1) pool.Call(n, fn, context);
}

}  // namespace lab
