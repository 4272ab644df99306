#include "lab/place.h"

#include <climits>
#include <tuple>

namespace lab {

std::strong_ordering Place::operator<=>(const Place& other) const {
  const auto key = [](const Place& p) {
    const bool behind_layers = p.layer == kNoLayer && p.tap != Tap::embedding;
    return std::tuple(behind_layers ? INT_MAX : p.layer, p.tap, p.token);
  };
  return key(*this) <=> key(other);
}

}  // namespace lab
