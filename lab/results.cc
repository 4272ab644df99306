#include "lab/results.h"

#include <algorithm>
#include <limits>

#include "lab/cli.h"
#include "lab/error.h"
#include "lab/names.h"
#include "lab/run_readers.h"

namespace lab {
namespace {

// The records up to a summary.
struct Part {
  std::string path;
  std::vector<Json> records;
  Json summary;
  MadeBy made_by;
};

class PartReader {
 public:
  explicit PartReader(const std::string& path) : path_(path), text_(ReadText(path)) {}

  void ReadInto(std::vector<Part>& parts) {
    Part part = {path_, {}, {}, {}};
    bool open = true;  // no summary yet
    for (const std::string_view line : LinesOf(text_)) {
      ++line_;
      if (line.empty()) continue;
      const Json record = Json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (!record.is_object() || !record.contains("kind") || !record["kind"].is_string())
        Fail("{}: line {}: no record of 'lab check' or 'lab bisect'; --format jsonl prints them",
             path_, line_);
      open = record["kind"] != "summary";
      if (open) {
        part.records.push_back(record);
        continue;
      }
      Close(part, record);
      parts.push_back(std::move(part));
      part = {path_, {}, {}, {}};
    }
    if (open) Fail("{}: no summary at its end: that run was cut off; make it again", path_);
  }

 private:
  void Close(Part& part, const Json& summary) const {
    part.summary = summary;
    // What was joined before says that it is complete by being here.
    try {
      const std::vector<MadeBy> made_by = MadeByOf(summary);
      if (made_by.empty()) Fail("{}: line {}: nobody made it", path_, line_);
      part.made_by = made_by.front();
      if (made_by.size() > 1) part.made_by.part = part.made_by.of = 1;
    } catch (const Json::exception& error) {
      Fail("{}: line {}: its summary does not say how it was made: {}", path_, line_,
           Printable(error.what()));
    }
    const MadeBy& m = part.made_by;
    if (m.part < 1 || m.part > m.of) Fail("{}: line {}: part {} of {}", path_, line_, m.part, m.of);
  }

  const std::string& path_;
  std::string text_;
  size_t line_ = 0;
};

// The command that makes a part, from that of another.
std::string CommandOf(std::string command, const MadeBy& other, size_t part) {
  const std::string theirs = fmt::format("{}/{}", other.part, other.of);
  const size_t at = command.find("--shard");
  const size_t value = at == std::string::npos ? at : command.find(theirs, at);
  if (value == std::string::npos) return fmt::format("--shard {}/{}", part, other.of);
  return command.replace(value, theirs.size(), fmt::format("{}/{}", part, other.of));
}

// Parts of one run, sorted: each is there once.
void CheckComplete(const std::vector<const Part*>& parts) {
  const MadeBy& first = parts.front()->made_by;
  for (size_t i = 0; i < parts.size(); ++i) {
    const MadeBy& m = parts[i]->made_by;
    if (m.of != first.of)
      Fail("{}: a part of {}, but {} is one of {}; give the parts of one run", parts[i]->path, m.of,
           parts[0]->path, first.of);
    if (i > 0 && m.part == parts[i - 1]->made_by.part)
      Fail("{}: part {}/{} for the second time, it is in {} already", parts[i]->path, m.part, m.of,
           parts[i - 1]->path);
  }
  for (size_t part = 1; part <= first.of; ++part)
    if (part > parts.size() || parts[part - 1]->made_by.part != part)
      Fail("{}: part {}/{} of its run is missing; make it: {}", parts[0]->path, part, first.of,
           Printable(CommandOf(first.command, first, part), 400));
}

}  // namespace

std::string_view Results::kind() const {
  return records.empty() ? "summary"
                         : std::string_view(records[0]["kind"].get_ref<const std::string&>());
}

std::vector<Results> ReadResults(const std::vector<std::string>& paths) {
  std::vector<Part> parts;
  for (const std::string& path : paths) PartReader(path).ReadInto(parts);
  std::vector<std::vector<const Part*>> runs;
  for (const Part& part : parts) {
    auto run = std::find_if(runs.begin(), runs.end(), [&](const auto& r) {
      return r.front()->made_by.whole == part.made_by.whole;
    });
    if (run == runs.end()) run = runs.emplace(run);
    run->push_back(&part);
  }
  std::vector<Results> joined;
  for (auto& run : runs) {
    std::stable_sort(run.begin(), run.end(), [](const Part* a, const Part* b) {
      return a->made_by.part < b->made_by.part;
    });
    CheckComplete(run);
    Results results;
    results.source = run.front()->path;
    for (const Part* part : run) {
      results.records.insert(results.records.end(), part->records.begin(), part->records.end());
      results.summaries.push_back(part->summary);
      for (const MadeBy& m : MadeByOf(part->summary)) results.made_by.push_back(m);
    }
    joined.push_back(std::move(results));
  }
  return joined;
}

bool IsResults(std::string_view text) {
  const Json record = Json::parse(text.substr(0, text.find('\n')), nullptr, false);
  return record.is_object() && record.contains("kind") && record["kind"].is_string();
}

double ToNumber(const Json& value) {
  if (value.is_number()) return value.get<double>();
  const auto text = value.get<std::string>();
  if (text == "inf") return std::numeric_limits<double>::infinity();
  if (text == "-inf") return -std::numeric_limits<double>::infinity();
  return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace lab
