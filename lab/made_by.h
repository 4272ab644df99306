#pragma once
// Where results come from. The summary record of their JSON lines says it, so that the parts of one
// run can be joined and a report can name its sources.
#include <span>
#include <string>
#include <vector>

#include "lab/json.h"
#include "lab/shard.h"

namespace lab {

struct MadeBy {
  std::string command;      ///< as it was typed, quoted for a shell where that is needed
  std::string build;        ///< "lab 0.1.0 (commit ...), g++ 12.2.0"
  std::string machine;      ///< processor and SIMD target
  std::string model;        ///< empty: none was read
  size_t part = 1, of = 1;  ///< as --shard I/N says it
  /// Equal in all parts of one run, different in any other: 16 hexadecimal digits of a hash over
  /// the command without --shard, --threads and --format, the build, the model and `items`.
  std::string whole;
};

/// args: a verb's argv from its own name on. items: the list that --shard cuts, before it is cut.
MadeBy DescribeRun(int argc, char** argv, const std::string& model, const Shard& shard,
                   std::span<const std::string> items);

Json ToJson(const std::vector<MadeBy>& made_by);
/// Throws nlohmann::json::exception where a key is missing.
std::vector<MadeBy> MadeByOf(const Json& summary);

/// `text` as one word of a shell.
std::string ShellWord(const std::string& text);

}  // namespace lab
