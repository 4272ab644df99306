#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace lab {

/// A SIMD target of Highway that this binary holds code for.
struct SimdTarget {
  std::string name;  ///< "AVX2", "AVX3_DL", "NEON", ...
  bool runs_here;
  size_t lanes;  ///< floats in a vector
};

/// Best first.
std::vector<SimdTarget> SimdTargets();

/// Sends all Highway rows of this process to one target, "" to the best. Throws Error: exit 2 for
/// an unknown name, 125 for a target that this machine lacks. Not while rows are running.
void UseSimdTarget(std::string_view name);

/// The target that Highway rows use now.
SimdTarget CurrentSimdTarget();

}  // namespace lab
