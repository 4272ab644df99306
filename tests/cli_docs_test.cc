// lab docs: every option that --help shows is on the man page and in the completions.
#include <algorithm>

#include "tests/cli_run.h"

namespace lab::cli_test {
namespace {

struct HelpEntry {
  Strings flags;     // "-o", "--output"
  std::string type;  // "FILE"; "" for a flag without a value
};

// The lines of --help that begin with an option: "  -o,--output FILE REQUIRED  what it is".
std::vector<HelpEntry> OptionsOf(const std::string& verb) {
  std::vector<HelpEntry> options;
  for (const std::string& line : Lines(RunLab({verb, "--help"}).out)) {
    if (!line.starts_with("  -")) continue;
    std::istringstream words(line);
    std::string names;
    HelpEntry entry;
    words >> names;
    std::istringstream split(names);
    for (std::string flag; std::getline(split, flag, ',');) entry.flags.push_back(flag);
    const size_t value = line.find_first_not_of(' ', line.find(names) + names.size());
    if (value != std::string::npos && value == line.find(names) + names.size() + 1)
      words >> entry.type;
    if (entry.type.ends_with(':')) entry.type.clear();  // "Excludes: ..." of a flag
    options.push_back(entry);
  }
  return options;
}

// As on the page: without the marks of fonts and escaped hyphens.
std::string Plain(std::string roff) {
  for (const auto& [from, to] :
       {std::pair<std::string, std::string>{"\\-", "-"}, {"\\fB", ""}, {"\\fI", ""}, {"\\fR", ""}})
    for (size_t at = 0; (at = roff.find(from, at)) != std::string::npos;)
      roff.replace(at, from.size(), to);
  return roff;
}

std::string Between(const std::string& text, const std::string& from, const std::string& to) {
  const size_t begin = text.find(from), end = text.find(to, begin + from.size());
  EXPECT_NE(begin, std::string::npos) << from;
  return begin == std::string::npos ? "" : text.substr(begin, end - begin);
}

// What bash offers behind `words`, of which the last is to be completed.
Strings Completed(const std::string& script, const Strings& words) {
  TempDir dir;
  std::string line;
  for (const std::string& word : words) line += "'" + word + "' ";
  WriteBytes(dir / "run",
             script + "compopt() { COMPREPLY_FILES=$2; }\nCOMP_WORDS=(" + line +
                 ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_lab\n" +
                 "printf '%s\\n' \"${COMPREPLY[@]}\" ${COMPREPLY_FILES:+<$COMPREPLY_FILES>}");
  FILE* pipe = popen(("bash '" + (dir / "run") + "' 2>&1").c_str(), "r");
  std::string text;
  char buffer[4096];
  while (pipe && fgets(buffer, sizeof buffer, pipe)) text += buffer;
  EXPECT_TRUE(pipe && pclose(pipe) == 0) << text;
  return Lines(text);
}

bool Offers(const Strings& offered, const std::string& word) {
  return std::find(offered.begin(), offered.end(), word) != offered.end();
}

TEST(CliDocs, EveryOptionIsOnTheManPage) {
  const Result man = RunLab({"docs", "man"});
  ASSERT_EQ(man.code, 0) << man.err;
  const std::string page = Plain(man.out);
  size_t seen = 0;
  for (const std::string& verb : Verbs()) {
    const std::string section = Between(page, "\n.SS lab " + verb + "\n", "\n.S");
    for (const HelpEntry& option : OptionsOf(verb)) {
      std::string line = fmt::format("\n.TP\n{}", fmt::join(option.flags, " "));
      if (!option.type.empty()) line += " " + option.type;
      ExpectHas(section, {line});
      ++seen;
    }
    ExpectHas(section, {"Example:\n  lab " + verb});
  }
  EXPECT_GT(seen, 100u);
  ExpectHas(page, {".SH EXIT STATUS\n.TP\n0\npass\n", "\n.TP\n125\ncannot run here\n"});
}

TEST(CliDocs, EveryOptionIsCompletedInBash) {
  const std::string script = RunLab({"docs", "bash"}).out;
  const Strings verbs = Completed(script, {"lab", ""});
  for (const std::string& verb : Verbs()) {
    EXPECT_TRUE(Offers(verbs, verb)) << verb;
    const Strings flags = Completed(script, {"lab", verb, "--model", "x", "-"});
    for (const HelpEntry& option : OptionsOf(verb))
      for (const std::string& flag : option.flags)
        EXPECT_TRUE(Offers(flags, flag)) << verb << " " << flag;
  }
}

TEST(CliDocs, EveryOptionIsCompletedInZsh) {
  const Result zsh = RunLab({"docs", "zsh"});
  ASSERT_EQ(zsh.code, 0) << zsh.err;
  EXPECT_TRUE(zsh.out.starts_with("#compdef lab\n"));
  for (const std::string& verb : Verbs()) {
    ExpectHas(zsh.out, {"\n    '" + verb + ":"});
    const std::string arguments = Between(zsh.out, "\n    " + verb + ") _arguments", ";;\n");
    for (const HelpEntry& option : OptionsOf(verb))
      for (const std::string& flag : option.flags)
        EXPECT_TRUE(arguments.find(")" + flag + "[") != std::string::npos ||
                    arguments.find(")" + flag + "=[") != std::string::npos ||
                    arguments.find(")" + flag + "+[") != std::string::npos ||
                    arguments.find("'*" + flag + "=[") != std::string::npos)
            << verb << " " << flag;
  }
}

TEST(CliDocs, ValuesAreCompletedByTheirType) {
  const std::string script = RunLab({"docs", "bash"}).out;
  EXPECT_EQ(Completed(script, {"lab", "forward", "--format", ""}), (Strings{"text", "jsonl"}));
  EXPECT_EQ(Completed(script, {"lab", "check", "--contract", "=", "q"}), (Strings{"q16", "q8"}));
  EXPECT_EQ(Completed(script, {"lab", "check", "--contract", "="}), (Strings{"f32", "q16", "q8"}));
  EXPECT_EQ(Completed(script, {"lab", "list", "t"}), (Strings{"taps"}));
  EXPECT_TRUE(Offers(Completed(script, {"lab", "forward", "--dump", ""}), "<default>"));
  EXPECT_TRUE(Offers(Completed(script, {"lab", "diff", "a.jsonl", ""}), "<default>"));
  EXPECT_TRUE(Offers(Completed(script, {"lab", "check", "--cases", ""}), "<dirnames>"));
  EXPECT_FALSE(Offers(Completed(script, {"lab", "forward", "--threads", ""}), "<default>"));
}

}  // namespace
}  // namespace lab::cli_test
