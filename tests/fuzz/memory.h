#pragma once
#include <cstddef>

namespace lab::fuzz {

/// The most heap that reading `bytes` of input may hold at one time.
constexpr size_t MemoryLimit(size_t bytes) {
  return (size_t{1} << 20) + 64 * bytes;
}

/// How much more heap than at its construction this thread has held since then. Counts under
/// AddressSanitizer, which reports each allocation; 0 elsewhere.
class PeakMeter {
 public:
  PeakMeter();
  size_t peak() const;
};

}  // namespace lab::fuzz
