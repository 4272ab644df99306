#pragma once
#include "model/weight_file.h"

namespace lab {

/// Reads a GGUF v2 or v3 file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Every
/// count, string, offset and array is checked against the file before it is used. What a file can
/// make lab allocate is bounded by its own size: at most 32 bytes for each byte of header. Throws
/// Error naming file, offset and key or tensor.
WeightFile ReadGguf(FileBytes file);

}  // namespace lab
