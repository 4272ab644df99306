#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace lab {

/// The I-th of N parts of a list, as --shard I/N says it: every N-th, beginning with the I-th.
struct Shard {
  size_t part = 1, parts = 1;
  bool Has(size_t index) const { return index % parts == part - 1; }
  /// Throws Error where a part would be empty: `count` things ("cases") are too few.
  void Check(size_t count, std::string_view things) const;
};

/// "": everything. Throws Error.
Shard ParseShard(const std::string& text);

}  // namespace lab
