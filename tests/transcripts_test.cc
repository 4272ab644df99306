// What a user sees, to the letter: every command of tests/transcripts/*.txt is run, and must print
// what stands below it. After a change that is meant, LAB_RENEW_TRANSCRIPTS=1 writes the files
// anew, to be read before they are committed.
#include <cstdlib>

#include "tests/cli_run.h"
#include "tests/paths.h"

namespace lab::cli_test {
namespace {

constexpr std::string_view kPrompt = "$ ";

// The commands of a transcript run one after the other in a folder of their own, which has the
// committed cases and the golden files.
class Session {
 public:
  Session() {
    fs::create_directory_symlink(kCasesDir, dir_ / "cases");
    fs::create_directory_symlink(kGoldenDir, dir_ / "golden");
  }

  // What it writes to both streams, then the exit code unless it is 0.
  std::string Run(const std::string& command) {
    Process process({});
    process.In(dir_ / "").Shell("exec 2>&1; LAB=$0; lab() { \"$LAB\" \"$@\"; }; " + command);
    process.Start();
    const Result r = process.Finish();
    std::string shown = r.out;
    if (!shown.empty() && shown.back() != '\n') shown += "\\ no newline\n";
    if (r.code != 0) shown += fmt::format("[exit code {}]\n", r.code);
    return shown;
  }

 private:
  TempDir dir_;
};

std::string RunAgain(const std::string& transcript) {
  Session session;
  std::string again;
  for (const std::string& line : Lines(transcript))
    if (line.starts_with(kPrompt)) {
      if (!again.empty()) again += "\n";
      again += line + "\n" + session.Run(line.substr(kPrompt.size()));
    }
  return again;
}

// The first line that differs, both times, under the command that it belongs to.
std::string FirstDifference(const std::string& expected, const std::string& got) {
  const Strings a = Lines(expected), b = Lines(got);
  const size_t common = std::min(a.size(), b.size());
  size_t at = 0;
  std::string command;
  for (; at < common && a[at] == b[at]; ++at)
    if (a[at].starts_with(kPrompt)) command = a[at];
  const auto line = [&](const Strings& lines) { return at < lines.size() ? lines[at] : "(end)"; };
  return fmt::format("{}\nline {}\n- {}\n+ {}", command, at + 1, line(a), line(b));
}

Strings TranscriptNames() {
  Strings names;
  for (const auto& entry : fs::directory_iterator(kTranscriptsDir))
    names.push_back(entry.path().stem());
  std::sort(names.begin(), names.end());
  return names;
}

class Transcripts : public testing::TestWithParam<std::string> {};

TEST_P(Transcripts, ShowWhatAUserSees) {
  const std::string path = kTranscriptsDir + ("/" + GetParam() + ".txt");
  const std::string expected = ReadBytes(path), got = RunAgain(expected);
  if (std::getenv("LAB_RENEW_TRANSCRIPTS")) WriteBytes(path, got);
  EXPECT_TRUE(got == expected) << FirstDifference(expected, got);
}

INSTANTIATE_TEST_SUITE_P(, Transcripts, testing::ValuesIn(TranscriptNames()),
                         [](const auto& name) { return name.param; });

}  // namespace
}  // namespace lab::cli_test
