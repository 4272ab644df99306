#pragma once
// What a record of times must say about where it was taken.
#include <cstddef>
#include <string>

namespace lab {

std::string CpuModel();

/// Bytes of the last-level cache; 32 MB where the system does not say.
size_t LastLevelCache();

/// Bytes of this process that lie in huge pages now.
size_t HugePagesInUse();

/// "madvise", "always", "never", or "unknown": when the system gives huge pages.
std::string HugePagePolicy();

/// Processes that wanted a core, over the last minute; below 0 where the system does not say.
double LoadAverage();

}  // namespace lab
