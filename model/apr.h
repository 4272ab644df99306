#pragma once
#include "model/weight_file.h"

namespace lab {

/// Reads an APR v2 file (aprender, crates/apr-format/src/v2) of either of its writers: `apr import`
/// (Hugging Face's names, row length last) and realizar's GGUF converter (GGUF's names, row length
/// first, no footer). Sections, offsets, sizes and the header's CRC are checked before use; the
/// footer's is left to CheckAprFooter, because it takes a read of the whole file. Throws Error
/// naming file, offset and tensor.
WeightFile ReadApr(FileBytes file);

enum class AprFooter { absent, right, wrong };
/// Compares the CRC in the last four bytes of an APR file with the bytes before them; files of
/// other formats have none.
AprFooter CheckAprFooter(const WeightFile& file);

}  // namespace lab
