#pragma once
#include <benchmark/benchmark.h>

#include <functional>

#include "bench/roofline.h"
#include "bench/sample.h"
#include "kernels/device_pass.h"

namespace lab {

/// How rows are timed.
struct TimingOptions {
  int threads = 1;
  size_t cold_bytes = 0;  ///< weights and KV rotate through at least so much memory; 0: one copy
  size_t launches = 100;  ///< of a row on a device, between which the host does not wait
  Roofline roofline;
  std::function<double()> read_rate;  ///< the bandwidth at this moment, bytes per second
};

/// A row bound to a case, judged before its first run is timed. On a device everything that a
/// timed run reads and writes is there already, and its launches are one graph, as in decoding.
class TimedRow {
 public:
  /// `c` and `options` must outlive it. lanes: of the row's vectors.
  TimedRow(const Case& c, const RowUse& use, bool half_kv, size_t lanes,
           const TimingOptions& options);

  const Verdict& verdict() const { return verdict_; }
  /// The timed loop, and the counters; the roof is that of the bandwidth just before and after the
  /// loop. A wrong row is skipped instead, and one whose last outputs, poisoned before the loop,
  /// differ from the judged ones in a bit is no result either.
  void Time(benchmark::State& state);

 private:
  template <class Args>
  std::vector<Args> Copies(const Args& args);
  template <class Args>
  void Loop(benchmark::State& state, const Args& args);
  template <class Args>
  void MakeGraph(const std::vector<Args>& copies);

  RowUse use_;
  const TimingOptions& options_;
  Binding<float> binding_;
  Verdict verdict_;
  std::deque<GuardedBuffer<float>> judged_;
  AlignedVector<uint8_t> copies_;  // of what args stream, one set behind the other
  size_t next_ = 0;                // set, so that a short loop does not begin with the warm ones
  double read_rate_;               // before the next loop
  std::vector<float> scratch_;     // of attention on a device
  std::unique_ptr<DevicePass> graph_;
  size_t launches_ = 0;  // in it
};

}  // namespace lab
