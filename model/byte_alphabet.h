#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace lab {

/// The byte alphabet of GPT-2's byte-level BPE: each byte stands in vocabularies as one printable
/// character. Printable Latin-1 bytes stand for themselves, the other 68 for U+0100 on.
struct ByteAlphabet {
  std::array<uint16_t, 256> code_of_byte;  ///< the character of a byte
  std::array<int16_t, 512> byte_of_code;   ///< the byte of a character below U+0200, or -1
};
const ByteAlphabet& GetByteAlphabet();

/// The characters (UTF-8) that stand for `bytes`.
std::string BytesToAlphabet(std::string_view bytes);
/// The inverse; characters outside the alphabet are kept as they are.
std::string AlphabetToBytes(std::string_view text);

}  // namespace lab
