#pragma once
#include <string>

#include "lab/table.h"

namespace lab {

/// lab inspect of a trace or dump: its header, what it holds of each tap, and the laws
/// (lab/laws.h). Returns exit code 1 when one is broken.
int InspectRun(const std::string& path, Format format);

}  // namespace lab
