#pragma once
#include <compare>
#include <cstddef>

#include "lab/taps.h"

namespace lab {

/// One tap of one token.
struct Place {
  Tap tap;
  int layer;
  size_t token;
  /// In the order of the pass: embedding, the layers, final_norm, lm_head.
  std::strong_ordering operator<=>(const Place& other) const;
  bool operator==(const Place&) const = default;
};

}  // namespace lab
