#pragma once
#include "lab/case.h"

namespace lab {

/// The case with other inputs of the same kind: every float times a random factor of +-[0.5, 1.5],
/// the blocks of each weight matrix shuffled. The same seed gives the same case; its name ends in
/// "#seed".
Case Redrawn(const Case& c, uint64_t seed);

}  // namespace lab
