#pragma once
#include <cstddef>
#include <vector>

namespace lab {

/// How many unpacked rows a matvec of several tokens keeps: the tokens pass through the caches once
/// for all of them.
inline constexpr size_t kRowGroup = 12;

/// n floats of this thread's own, until its next call. To be called outside the code compiled for
/// one target: std::vector's functions must not exist in a version for AVX-512 alone.
inline float* Scratch(size_t n) {
  thread_local std::vector<float> values;
  if (values.size() < n) values.resize(n);
  return values.data();
}

}  // namespace lab
