#pragma once
#include <string>

namespace lab {

/// Throws Error "what: why". A row on a device may throw, since a device may be missing, full or
/// broken; such rows run on the caller's thread (lab/registry.h). Exit code 125 where the device
/// has no room, else 70.
[[noreturn]] void ThrowDeviceError(const std::string& what, const std::string& why,
                                   bool out_of_memory = false);

}  // namespace lab
