#pragma once
// Where the time of a run went.
#include <string>
#include <vector>

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
};

/// For each phase a table of its steps, all layers summed, the longest first: milliseconds, share
/// of the phase, bytes moved, GB/s; and how much of the phase the steps explain.
std::string TimesToText(const RunTimes& times);

/// The same figures: {"kind":"time","phase",..,"step",..,"calls",..,"seconds",..,"bytes",..}, and
/// a line of kind "phase" for each phase.
std::string TimesToJsonl(const RunTimes& times);

/// Every step as a complete event of the Trace Event Format (Chrome, ui.perfetto.dev); microseconds
/// since the first.
std::string TimesToChromeTrace(const RunTimes& times);

}  // namespace lab
