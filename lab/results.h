#pragma once
// Results of `lab check` and `lab bisect`, read back from the JSON lines that they print.
#include <string>
#include <string_view>
#include <vector>

#include "lab/json.h"
#include "lab/made_by.h"

namespace lab {

/// The results of one run; of one that was cut by --shard all of its parts.
struct Results {
  std::string source;           ///< the file, or the first of them
  std::vector<Json> records;    ///< in the order of the parts, without summaries
  std::vector<Json> summaries;  ///< one for each part
  std::vector<MadeBy> made_by;  ///< the same

  /// "verdict", "mutant", "step", "blame", "xray", "tap" or ..: the kind of the first record.
  std::string_view kind() const;
};

/// Reads files of JSON lines, each of them one part or several (as `parallel` collects them), and
/// joins the parts of a run. In the order in which the runs first appear. Throws Error that names
/// file and line of what is no record, a part that is cut off, there twice, or missing (with the
/// command that makes it).
std::vector<Results> ReadResults(const std::vector<std::string>& paths);

/// Whether the text begins with such a record.
bool IsResults(std::string_view text);

/// What Number (lab/json.h) wrote.
double ToNumber(const Json& value);

}  // namespace lab
