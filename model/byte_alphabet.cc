#include "model/byte_alphabet.h"

#include <utf8proc.h>

namespace lab {
namespace {

ByteAlphabet Build() {
  ByteAlphabet a = {};
  a.byte_of_code.fill(-1);
  uint16_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xff && byte != 0xad);
    a.code_of_byte[byte] = printable ? static_cast<uint16_t>(byte) : next++;
    a.byte_of_code[a.code_of_byte[byte]] = static_cast<int16_t>(byte);
  }
  return a;
}

}  // namespace

const ByteAlphabet& GetByteAlphabet() {
  static const ByteAlphabet kAlphabet = Build();
  return kAlphabet;
}

std::string BytesToAlphabet(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) {
    utf8proc_uint8_t utf8[4];
    const auto code = GetByteAlphabet().code_of_byte[static_cast<uint8_t>(byte)];
    out.append(reinterpret_cast<const char*>(utf8), utf8proc_encode_char(code, utf8));
  }
  return out;
}

std::string AlphabetToBytes(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    utf8proc_int32_t code;
    const auto* p = reinterpret_cast<const utf8proc_uint8_t*>(text.data() + i);
    const auto n = utf8proc_iterate(p, static_cast<utf8proc_ssize_t>(text.size() - i), &code);
    const size_t length = n > 0 ? static_cast<size_t>(n) : 1;
    const int byte = n > 0 && code < 512 ? GetByteAlphabet().byte_of_code[code] : -1;
    if (byte >= 0) {
      out += static_cast<char>(byte);
    } else {
      out += text.substr(i, length);
    }
    i += length;
  }
  return out;
}

}  // namespace lab
