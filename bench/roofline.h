#pragma once
// What this machine can do at best: the roof that rows are compared with (Williams et al. 2009).
#include <cstdint>
#include <string>

#include "lab/aligned.h"
#include "lab/registry.h"
#include "lab/table.h"

namespace lab {

/// Per second. An integer multiply-add counts as two operations, like a float one.
struct Peaks {
  double bytes = 0, f32_ops = 0, int8_ops = 0;
};

struct Roofline {
  Peaks one, all;  ///< on one thread, on `threads`
  int threads = 1;
  size_t buffer_bytes = 0;  ///< that the bandwidth was measured over
  std::string pages;        ///< that it lay in
  std::string target;       ///< of the SIMD code that measured

  /// The least seconds in which that much can be moved and computed on `threads`.
  double Seconds(double bytes, double ops, Contract contract) const;
};

/// Takes about a second.
Roofline MeasureRoofline(int threads);

/// The bandwidth alone on roofline.threads, in the same way; takes a fraction of a second.
double MeasureReadRate(const Roofline& roofline);

/// What to say of runs if `after` them the bandwidth was another one than before, by more than
/// 15 %; else empty. A virtual machine's host may change it by half within seconds.
std::string AnotherRoof(const Roofline& before, double after);

/// The bandwidth from one moment to the next, beside what is timed.
class ReadProbe {
 public:
  explicit ReadProbe(int threads);
  /// Bytes per second, the better of one stream and four. Each reads a quarter of a buffer that no
  /// cache can hold, the one that was read longest ago; some milliseconds.
  double Rate();

 private:
  int threads_;
  AlignedVector<uint8_t> buffer_;
  size_t next_ = 0;  // quarter
};

Table RooflineTable(const Roofline& roofline);

// bench/roofline_hwy.cc, compiled for every target. `sink` keeps the work from being left out.

/// Reads n bytes (a multiple of 4096) once: `streams` (1, 2 or 4) equal parts side by side.
void ReadAll(const uint8_t* bytes, size_t n, size_t streams, uint64_t* sink);
/// Multiply-adds in registers; returns the operations done.
double SpinF32(size_t rounds, float* sink);
double SpinInt8(size_t rounds, int32_t* sink);

}  // namespace lab
