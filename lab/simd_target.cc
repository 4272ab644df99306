#include "lab/simd_target.h"

// clang-format off: before Highway, it says which targets the rows are compiled for.
#include "kernels/targets-inl.h"
// clang-format on

#include <hwy/highway.h>
#include <hwy/targets.h>

#include "lab/error.h"
#include "lab/names.h"

namespace lab {
namespace {

using Mask = decltype(hwy::SupportedTargets());

size_t Lanes(Mask target) {
  const std::string_view name = hwy::TargetName(target);
  if (name.starts_with("AVX3")) return 16;
  if (name == "AVX2") return 8;
  if (name == "SCALAR") return 1;
  return 4;  // SSE*, NEON, EMU128 and 128-bit SVE
}

// What runs here, before anybody forces a target.
Mask RunsHere() {
  static const Mask kTargets = hwy::SupportedTargets();
  return kTargets;
}

}  // namespace

std::vector<SimdTarget> SimdTargets() {
  std::vector<SimdTarget> targets;
  for (Mask left = HWY_TARGETS; left != 0; left &= left - 1) {
    const Mask target = left & -left;  // the lowest bit is the best
    targets.push_back({hwy::TargetName(target), (RunsHere() & target) != 0, Lanes(target)});
  }
  return targets;
}

void UseSimdTarget(std::string_view name) {
  RunsHere();
  Mask chosen =
      0;  // the named target and all below it, for rows that are not compiled for every one
  std::vector<SimdTarget> targets = SimdTargets();
  std::vector<std::string_view> names;
  for (const SimdTarget& t : targets) names.push_back(t.name);
  if (!name.empty()) {
    const SimdTarget& wanted = targets[IndexOfName(names, name, "--target")];
    if (!wanted.runs_here)
      throw Error(kCannotRun, fmt::format("--target {}: this processor does not have it", name));
    for (Mask left = HWY_TARGETS; left != 0; left &= left - 1)
      if (hwy::TargetName(left & -left) == name) chosen = left & RunsHere();
  }
  hwy::SetSupportedTargetsForTest(chosen);  // 0: back to what the processor has
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

SimdTarget CurrentSimdTarget() {
  const Mask supported = hwy::SupportedTargets() & HWY_TARGETS;
  const Mask best = supported & -supported;
  return {hwy::TargetName(best), true, Lanes(best)};
}

}  // namespace lab
