#include "lab/made_by.h"

#include "bench/machine.h"
#include "lab/sha256.h"
#include "lab/version.h"

namespace lab {
namespace {

// Arguments that change no result.
constexpr std::string_view kNoMatter[] = {"--shard", "--threads", "--format"};

// The arguments that do, one a line.
std::string WithoutNoMatter(int argc, char** argv) {
  std::string text;
  for (int i = 0; i < argc; ++i) {
    const std::string_view arg = argv[i];
    bool skipped = false;
    for (const std::string_view name : kNoMatter) {
      skipped |= arg.starts_with(name) && arg.substr(name.size()).starts_with('=');
      if (arg != name) continue;
      skipped = true;
      ++i;  // its value
    }
    if (!skipped) text.append(arg).append("\n");
  }
  return text;
}

}  // namespace

std::string ShellWord(const std::string& text) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string quoted = "'";
  for (const char c : text) c == '\'' ? quoted += "'\\''" : quoted += c;
  quoted += '\'';
  return quoted;
}

MadeBy DescribeRun(int argc, char** argv, const std::string& model, const Shard& shard,
                   std::span<const std::string> items) {
  MadeBy run;
  run.command = "lab";
  for (int i = 0; i < argc; ++i) run.command.append(" ").append(ShellWord(argv[i]));
  run.build = fmt::format("lab {} (commit {}), {}", Version(), Commit(), Compiler());
  run.machine = fmt::format("{}, {}", CpuModel(), HighwayTarget());
  run.model = model;
  run.part = shard.part, run.of = shard.parts;
  const std::string whole = fmt::format("{}{}\n{}\n{}", WithoutNoMatter(argc, argv), run.build,
                                        model, fmt::join(items, "\n"));
  run.whole = Sha256({reinterpret_cast<const uint8_t*>(whole.data()), whole.size()}).substr(0, 16);
  return run;
}

Json ToJson(const std::vector<MadeBy>& made_by) {
  Json list = Json::array();
  for (const MadeBy& m : made_by)
    list.push_back({{"command", m.command},
                    {"build", m.build},
                    {"machine", m.machine},
                    {"model", m.model},
                    {"part", m.part},
                    {"of", m.of},
                    {"whole", m.whole}});
  return list;
}

std::vector<MadeBy> MadeByOf(const Json& summary) {
  std::vector<MadeBy> made_by;
  for (const Json& j : summary.at("made_by"))
    made_by.push_back({j.at("command"), j.at("build"), j.at("machine"), j.at("model"), j.at("part"),
                       j.at("of"), j.at("whole")});
  return made_by;
}

}  // namespace lab
