#include "lab/shard.h"

#include <algorithm>
#include <cstdio>

#include "lab/error.h"
#include "lab/names.h"

namespace lab {

void Shard::Check(size_t count, std::string_view things) const {
  if (parts > std::max<size_t>(count, 1))
    Fail("--shard {}/{}: there are only {} {}; give at most {} parts", part, parts, count, things,
         count);
}

Shard ParseShard(const std::string& text) {
  Shard shard;
  char rest = 0;
  if (!text.empty() &&
      (std::sscanf(text.c_str(), "%zu/%zu%c", &shard.part, &shard.parts, &rest) != 2 ||
       shard.part < 1 || shard.part > shard.parts))
    Fail("--shard {}: expected I/N with I from 1 to N", Printable(text));
  return shard;
}

}  // namespace lab
