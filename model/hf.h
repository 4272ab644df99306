#pragma once
#include "model/weight_file.h"

namespace lab {

/// Reads a safetensors file with Hugging Face's names. The configuration is config.json in the
/// same folder, or the file's own __metadata__ with the same names (numbers as text). The
/// vocabulary is tokenizer.json in the same folder; without one there is no tokenizer. Throws
/// Error naming file and tensor.
WeightFile ReadHf(FileBytes file);

}  // namespace lab
