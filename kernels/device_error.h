#pragma once
#include <string>

namespace lab {

/// Throws Error "what: why". A row on a device may throw, since a device may be missing, full or
/// broken; such rows run on the caller's thread (lab/registry.h). Exit code 125 where that cannot
/// run here (no room, a shape that no kernel takes), else 70.
[[noreturn]] void ThrowDeviceError(const std::string& what, const std::string& why,
                                   bool cannot_run = false);

}  // namespace lab
