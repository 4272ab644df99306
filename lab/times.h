#pragma once
// Where the time of a run went.
#include <string>
#include <vector>

#include "bench/roofline.h"
#include "model/forward.h"

namespace lab {

/// All passes over the prompt, or all of generated tokens.
struct PhaseTime {
  size_t tokens = 0;
  double seconds = 0;
};

struct RunTimes {
  PhaseTime prefill, decode;
  std::vector<StepTime> steps;  ///< in the order of the run; those of the prefill come first
  Roofline roofline;            ///< of this machine on the threads of the run
};

/// For each phase a table of its steps, all layers summed, the longest first: milliseconds, share
/// of the phase, bytes moved, GB/s, GFLOP/s (GOP/s of integers), percent of what the roofline
/// allows for those bytes and operations; and how much of the phase the steps explain.
std::string TimesToText(const RunTimes& times);

/// The same figures: {"kind":"time","phase",..,"step",..,"calls",..,"seconds",..,"bytes",..,
/// "ops",..,"roof_seconds",..}, and a line of kind "phase" for each phase. roof_seconds: the least
/// time the roofline allows.
std::string TimesToJsonl(const RunTimes& times);

/// Every step as a complete event of the Trace Event Format (Chrome, ui.perfetto.dev); microseconds
/// since the first.
std::string TimesToChromeTrace(const RunTimes& times);

}  // namespace lab
