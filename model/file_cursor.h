#pragma once
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "lab/error.h"
#include "model/file_bytes.h"

namespace lab {

/// Reads little-endian numbers and strings of a file in order; refuses to step past the end with
/// an Error that names file and offset.
class FileCursor {
 public:
  /// `file` must outlive the cursor.
  explicit FileCursor(const FileBytes& file) : file_(file.name()), bytes_(file.bytes()) {}

  size_t offset() const { return offset_; }
  size_t left() const { return bytes_.size() - offset_; }

  /// Goes on at `offset`, which stands at `source` in the file and is called `what`.
  void MoveTo(uint64_t offset, size_t source, std::string_view what) {
    if (offset > bytes_.size())
      Bad(source, "{} begins at offset {}, past the end of the file ({} bytes): it is truncated",
          what, offset, bytes_.size());
    offset_ = offset;
  }

  template <class... A>
  [[noreturn]] void Bad(size_t offset, fmt::format_string<A...> format, A&&... args) const {
    Fail("{}: offset {}: {}", file_, offset, fmt::format(format, std::forward<A>(args)...));
  }

  std::span<const uint8_t> Take(uint64_t n, std::string_view what) {
    if (n > left())
      Bad(offset_, "{} needs {} bytes, {} are left: the file is truncated or damaged", what, n,
          left());
    const auto taken = bytes_.subspan(offset_, n);
    offset_ += n;
    return taken;
  }

  template <class T>
  T Read(std::string_view what) {
    T value;
    std::memcpy(&value, Take(sizeof value, what).data(), sizeof value);
    return value;
  }

  std::string_view Text(uint64_t n, std::string_view what) {
    const auto bytes = Take(n, what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  /// A count of things of at least `least` bytes each: more cannot follow in this file.
  uint64_t Count(uint64_t least, std::string_view what) {
    const size_t at = offset_;
    const auto n = Read<uint64_t>(what);
    if (n > left() / least)
      Bad(at, "{} says {}, but only {} bytes follow: the file is truncated or damaged", what, n,
          left());
    return n;
  }

 private:
  const std::string& file_;
  std::span<const uint8_t> bytes_;
  size_t offset_ = 0;
};

}  // namespace lab
