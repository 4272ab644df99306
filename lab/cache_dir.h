#pragma once
#include <string>

namespace lab {

/// ${XDG_CACHE_HOME:-~/.cache}/lab: fetched models and remembered checksums. May not exist.
std::string CacheDir();

}  // namespace lab
