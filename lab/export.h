#pragma once
#include <string>

#include "lab/case.h"

namespace lab {

/// Makes the folder. Throws Error when ExportCase could not write there.
void CheckExportFolder(const std::string& folder);

/// Writes a case for kernels that live elsewhere: DIR/<case>/ with its inputs as .npy files, its
/// weights as the raw bytes of their blocks (and dequantised, as .npy) and a README.md of shapes,
/// the formula, and how to have the output judged. Throws Error when something cannot be written.
void ExportCase(const Case& c, const std::string& folder);

}  // namespace lab
