#pragma once
// Made-up models: true structure, random weights from a fixed seed, in GGUF form. They go through
// the same reader as any file.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lab {

/// True for a name of a built-in shape: tiny, random:0.5b, random:1.5b, random:7b.
bool IsSynthShape(std::string_view name);
/// All names, for help texts.
std::string SynthShapeNames();

/// A complete GGUF v3 file of that shape, the same bytes at every call on every machine. Throws
/// Error for an unknown name. `tiny` (28 layers, hidden 256, FFN 768, 4/2 heads x 64, vocabulary
/// 512, 13 MB, header under 32 KB) takes milliseconds, random:7b (4.5 GB) a few seconds.
std::vector<uint8_t> MakeSynthGguf(std::string_view name);

}  // namespace lab
