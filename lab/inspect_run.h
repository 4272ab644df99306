#pragma once
#include <string>

#include "lab/table.h"

namespace lab {

/// lab inspect of a trace or dump: its header, what it holds of each tap, and the laws
/// (lab/laws.h). `names`: a file of tensor names (lab/name_map.h), or "". Returns exit code 1 when
/// a law is broken.
int InspectRun(const std::string& path, const std::string& names, Format format);

}  // namespace lab
