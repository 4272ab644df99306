#include "lab/shard.h"

#include <algorithm>

#include "lab/error.h"
#include "lab/names.h"

namespace lab {
void Shard::Check(size_t count, std::string_view things) const {
  if (parts > std::max<size_t>(count, 1))
    Fail("--shard {}/{}: there are only {} {}; give at most {} parts", part, parts, count, things,
         count);
}

Shard ParseShard(const std::string& text) {
  if (text.empty()) return {};
  const std::string_view view = text;
  const size_t slash = std::min(view.find('/'), view.size() - 1);
  const auto part = ParseDigits(view.substr(0, slash)), parts = ParseDigits(view.substr(slash + 1));
  if (!part || !parts || *part < 1 || *part > *parts)
    Fail("--shard {}: expected I/N with I from 1 to N", Printable(text));
  return {*part, *parts};
}

}  // namespace lab
