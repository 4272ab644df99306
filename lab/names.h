#pragma once
// Names and numbers that users type: look-up, spelling hints, globs, and text that is safe to
// print.
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lab {

/// The index of `name` in `names`; otherwise an Error: "--flag: unknown 'x'; did you mean 'y'?
/// known: ...".
size_t IndexOfName(std::span<const std::string_view> names, std::string_view name,
                   std::string_view what);

/// " (did you mean 'y'?)" for the closest of `names` within two or three edits, else "".
std::string DidYouMean(std::string_view name, std::span<const std::string_view> names);

/// Shell-style match: '*' any characters, '?' one.
bool GlobMatch(std::string_view pattern, std::string_view text);

/// Comma-separated globs, as options take them. None at all match everything.
class GlobList {
 public:
  explicit GlobList(std::string_view text);
  bool Match(std::string_view name) const;
  const std::vector<std::string>& globs() const { return globs_; }

 private:
  std::vector<std::string> globs_;
};

/// A number of digits alone, at most nine of them; absent otherwise.
std::optional<size_t> ParseDigits(std::string_view text);

/// `text` as it may stand in a one-line message: control bytes and broken UTF-8 escaped as \xNN,
/// cut after `limit` bytes with "...".
std::string Printable(std::string_view text, size_t limit = 80);

/// "1 case", "2 cases".
std::string CountOf(size_t n, std::string_view noun);

/// True when `text` is well-formed UTF-8; otherwise false with the offset of the first bad byte.
bool IsUtf8(std::string_view text, size_t* bad_offset = nullptr);

}  // namespace lab
