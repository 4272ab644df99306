#include "lab/names.h"

#include <fnmatch.h>
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <numeric>

#include "lab/error.h"

namespace lab {
namespace {

char Lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// Levenshtein distance that ignores the case of letters, one row of the table at a time.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = diagonal + (Lower(a[i - 1]) != Lower(b[j - 1]));
      diagonal = row[j];
      row[j] = std::min({change, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

// Length of the UTF-8 character at `text[i]`, 0 when it is malformed.
size_t Utf8Length(std::string_view text, size_t i) {
  utf8proc_int32_t code;
  const auto* p = reinterpret_cast<const utf8proc_uint8_t*>(text.data() + i);
  const utf8proc_ssize_t n =
      utf8proc_iterate(p, static_cast<utf8proc_ssize_t>(text.size() - i), &code);
  return n > 0 ? static_cast<size_t>(n) : 0;
}

}  // namespace

std::string DidYouMean(std::string_view name, std::span<const std::string_view> names) {
  const size_t limit = name.size() < 4 ? 1 : name.size() < 8 ? 2 : 3;
  std::string_view best;
  size_t best_distance = limit + 1;
  for (std::string_view candidate : names) {
    const size_t distance = EditDistance(name, candidate);
    if (distance < best_distance) best = candidate, best_distance = distance;
  }
  return best.empty() ? "" : fmt::format(" (did you mean '{}'?)", best);
}

size_t IndexOfName(std::span<const std::string_view> names, std::string_view name,
                   std::string_view what) {
  const auto it = std::find(names.begin(), names.end(), name);
  if (it == names.end())
    Fail("{}: unknown value '{}'{}; known: {}", what, Printable(name), DidYouMean(name, names),
         fmt::join(names, ", "));
  return static_cast<size_t>(it - names.begin());
}

bool GlobMatch(std::string_view pattern, std::string_view text) {
  return fnmatch(std::string(pattern).c_str(), std::string(text).c_str(), 0) == 0;
}

GlobList::GlobList(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    globs_.emplace_back(text.substr(at, comma - at));
    at = comma + 1;
  }
}

bool GlobList::Match(std::string_view name) const {
  return globs_.empty() || std::any_of(globs_.begin(), globs_.end(),
                                       [&](const std::string& g) { return GlobMatch(g, name); });
}

std::optional<size_t> ParseDigits(std::string_view text) {
  size_t number = 0;
  if (text.size() > 9) return std::nullopt;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || stop != text.data() + text.size()) return std::nullopt;
  return number;
}

std::string CountOf(size_t n, std::string_view noun) {
  return fmt::format("{} {}{}", n, noun, n == 1 ? "" : "s");
}

std::string Printable(std::string_view text, size_t limit) {
  std::string out;
  size_t i = 0;
  while (i < text.size() && i < limit) {
    const size_t n = Utf8Length(text, i);
    const auto byte = static_cast<unsigned char>(text[i]);
    if (n == 0 || byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
      i += 1;
    } else {
      out += text.substr(i, n);
      i += n;
    }
  }
  return i < text.size() ? out + "..." : out;
}

bool IsUtf8(std::string_view text, size_t* bad_offset) {
  for (size_t i = 0; i < text.size();) {
    const size_t n = Utf8Length(text, i);
    if (n == 0) {
      if (bad_offset) *bad_offset = i;
      return false;
    }
    i += n;
  }
  return true;
}

}  // namespace lab
