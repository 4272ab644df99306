#include "lab/shard.h"

#include <algorithm>
#include <charconv>

#include "lab/error.h"
#include "lab/names.h"

namespace lab {
namespace {

// std::scanf would take blanks, and "-1" for the largest number.
bool IsNumber(std::string_view text, size_t& number) {
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && rest == text.data() + text.size();
}

}  // namespace

void Shard::Check(size_t count, std::string_view things) const {
  if (parts > std::max<size_t>(count, 1))
    Fail("--shard {}/{}: there are only {} {}; give at most {} parts", part, parts, count, things,
         count);
}

Shard ParseShard(const std::string& text) {
  Shard shard;
  if (text.empty()) return shard;
  const std::string_view view = text;
  const size_t slash = std::min(view.find('/'), view.size() - 1);
  if (!IsNumber(view.substr(0, slash), shard.part) ||
      !IsNumber(view.substr(slash + 1), shard.parts) || shard.part < 1 || shard.part > shard.parts)
    Fail("--shard {}: expected I/N with I from 1 to N", Printable(text));
  return shard;
}

}  // namespace lab
