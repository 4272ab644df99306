#include "bench/roofline.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "bench/machine.h"
#include "lab/aligned.h"
#include "lab/parallel.h"
#include "lab/simd_target.h"

namespace lab {
namespace {

constexpr int kRounds = 5;
constexpr double kShortRound = 0.01;  // seconds

// A line of its own for each thread: results in one would be fought over.
template <class T>
struct alignas(64) Sink {
  T value = {};
};

template <class F>
double SecondsOf(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The rate of one pass over n bytes.
double ReadOnce(const uint8_t* bytes, size_t n, size_t streams, int threads) {
  constexpr size_t kPiece = 4096;
  const size_t pieces = n / kPiece, parts = static_cast<size_t>(threads);
  std::vector<Sink<uint64_t>> sinks(parts);
  const double seconds = SecondsOf([&] {
    ParallelFor(threads, [&](int i) {
      const size_t t = static_cast<size_t>(i), begin = pieces * t / parts;
      const size_t end = pieces * (t + 1) / parts;
      ReadAll(bytes + begin * kPiece, (end - begin) * kPiece, streams, &sinks[t].value);
    });
  });
  return static_cast<double>(pieces * kPiece) / seconds;
}

// The better of one stream and four: on Zen 3 one thread reads four about a fifth faster, two
// threads do not.
double ReadRate(const AlignedVector<uint8_t>& buffer, int threads) {
  double best = 0;
  for (int round = 0; round < kRounds; ++round)
    for (const size_t streams : {1, 4})
      best = std::max(best, ReadOnce(buffer.data(), buffer.size(), streams, threads));
  return best;
}

// That no cache holds.
size_t BufferBytes() {
  return std::max(size_t{256} << 20, 4 * LastLevelCache());
}

template <class T>
double SpinRate(double (*spin)(size_t rounds, T* sink), int threads) {
  std::vector<Sink<T>> sinks(static_cast<size_t>(threads));
  std::vector<Sink<double>> ops(sinks.size());
  double best = 0;
  size_t steps = 1 << 12;
  for (int round = 0; round < kRounds;) {
    const double seconds = SecondsOf([&] {
      ParallelFor(threads, [&](int i) {
        const auto t = static_cast<size_t>(i);
        ops[t].value = spin(steps, &sinks[t].value);
      });
    });
    if (seconds < kShortRound) {
      steps *= 2;
      continue;
    }
    double sum = 0;
    for (const auto& o : ops) sum += o.value;
    best = std::max(best, sum / seconds);
    ++round;
  }
  return best;
}

}  // namespace

double Roofline::Seconds(double bytes, double ops, Contract contract) const {
  // q16 multiplies two planes of integers with each weight.
  const double rate = contract == Contract::f32   ? all.f32_ops
                      : contract == Contract::q16 ? all.int8_ops / 2
                                                  : all.int8_ops;
  return std::max(bytes / all.bytes, ops / rate);
}

Roofline MeasureRoofline(int threads) {
  Roofline r;
  r.threads = threads;
  r.target = CurrentSimdTarget().name;
  r.buffer_bytes = BufferBytes();
  {
    const AlignedVector<uint8_t> buffer(r.buffer_bytes, 1);
    r.pages = HugePagesInUse() >= r.buffer_bytes / 2 ? "2 MB (madvise)" : "those of the system";
    r.one.bytes = ReadRate(buffer, 1);
    r.all.bytes = threads > 1 ? ReadRate(buffer, threads) : r.one.bytes;
  }
  r.one.f32_ops = SpinRate(SpinF32, 1);
  r.one.int8_ops = SpinRate(SpinInt8, 1);
  r.all.f32_ops = threads > 1 ? SpinRate(SpinF32, threads) : r.one.f32_ops;
  r.all.int8_ops = threads > 1 ? SpinRate(SpinInt8, threads) : r.one.int8_ops;
  return r;
}

double MeasureReadRate(const Roofline& r) {
  return ReadRate(AlignedVector<uint8_t>(r.buffer_bytes, 1), r.threads);
}

std::string AnotherRoof(const Roofline& before, double after) {
  constexpr double kDrift = 0.15;
  if (std::abs(after / before.all.bytes - 1) <= kDrift) return "";
  return fmt::format(
      "{:.1f} GB/s were read before the runs, {:.1f} after them: percentages are of the former",
      before.all.bytes / 1e9, after / 1e9);
}

ReadProbe::ReadProbe(int threads) : threads_(threads), buffer_(BufferBytes(), 1) {}

double ReadProbe::Rate() {
  const size_t quarter = buffer_.size() / 4;
  double best = 0;
  for (const size_t streams : {1, 4}) {
    best = std::max(best, ReadOnce(buffer_.data() + next_ * quarter, quarter, streams, threads_));
    next_ = (next_ + 1) % 4;
  }
  return best;
}

Table RooflineTable(const Roofline& r) {
  Table table({"what", "1 thread", fmt::format("{} threads", r.threads), "unit"});
  const auto add = [&](const char* what, double Peaks::*peak, const char* unit) {
    table.Add({what, fmt::format("{:.1f}", r.one.*peak / 1e9),
               fmt::format("{:.1f}", r.all.*peak / 1e9), unit});
  };
  add("read", &Peaks::bytes, "GB/s");
  add("f32 multiply-add", &Peaks::f32_ops, "GFLOP/s");
  add("int8 multiply-add", &Peaks::int8_ops, "GOP/s");
  return table;
}

}  // namespace lab
