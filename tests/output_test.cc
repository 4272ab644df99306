#include "lab/output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <functional>
#include <optional>

#include "lab/error.h"
#include "tests/test_util.h"

namespace lab {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

void WriteFile(const std::string& path, std::string_view text) {
  OutputFile out(path);
  out.Write(text);
  out.Commit();
}

// The Error of `action`, or a failure.
std::optional<Error> ErrorOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no Error";
  return std::nullopt;
}

mode_t ModeOf(const std::string& path) {
  struct stat st = {};
  EXPECT_EQ(stat(path.c_str(), &st), 0) << path;
  return st.st_mode & 0777;
}

// Root may write everywhere, so permissions show only as somebody else.
class Unprivileged {
 public:
  Unprivileged() { Become(kNobody); }
  ~Unprivileged() { Become(0); }

 private:
  static constexpr uid_t kNobody = 65534;
  void Become(uid_t user) {
    if (root_ && setresuid(user, user, 0) != 0) ADD_FAILURE() << "cannot become user " << user;
  }
  const bool root_ = geteuid() == 0;
};

TEST(OutputFile, AppearsWholeAtCommit) {
  TempDir dir;
  OutputFile out(dir / "new");
  out.Write("half");
  EXPECT_FALSE(fs::exists(dir / "new"));
  out.Write(" and half");
  out.Commit();
  EXPECT_EQ(dir.Names(), Names{"new"});
  EXPECT_EQ(ReadBytes(dir / "new"), "half and half");
}

TEST(OutputFile, ReplacesAnOldFileAtCommitAndByRename) {
  TempDir dir;
  std::ifstream old(WriteBytes(dir / "f", "old"));
  OutputFile out(dir / "f");
  out.Write("new");
  EXPECT_EQ(ReadBytes(dir / "f"), "old");
  EXPECT_EQ(dir.Names().size(), 2u) << "the temporary belongs into the folder of the target";
  out.Commit();
  EXPECT_EQ(ReadBytes(dir / "f"), "new");
  EXPECT_EQ(dir.Names(), Names{"f"});
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(old), {}), "old");
}

TEST(OutputFile, WithoutCommitLeavesThingsAsTheyWere) {
  TempDir dir;
  WriteBytes(dir / "f", "old");
  for (const char* name : {"f", "absent"}) {
    OutputFile out(dir / name);
    out.Write(std::string(200000, 'x'));
  }
  EXPECT_EQ(dir.Names(), Names{"f"});
  EXPECT_EQ(ReadBytes(dir / "f"), "old");
}

TEST(OutputFile, MovesWithItsBytes) {
  TempDir dir;
  std::optional<OutputFile> first(dir / "f");
  first->Write("one ");
  OutputFile second(std::move(*first));
  first.reset();
  second.Write("two");
  second.Commit();
  EXPECT_EQ(ReadBytes(dir / "f"), "one two");
  EXPECT_EQ(dir.Names(), Names{"f"});
}

TEST(OutputFile, KeepsEveryByteOfALargeFile) {
  TempDir dir;
  std::string expected;
  OutputFile out(dir / "f");
  for (size_t n = 0; expected.size() < 3'000'000; n = n * 3 + 1) {
    const std::string piece(n % 100'003, static_cast<char>(n));
    out.Write(piece);
    expected += piece;
  }
  out.Commit();
  EXPECT_EQ(ReadBytes(dir / "f") == expected, true);
}

TEST(OutputFile, ManyAtOnce) {
  TempDir dir;
  {
    std::vector<OutputFile> files;
    for (int i = 0; i < 40; ++i) files.emplace_back(dir / std::to_string(i));
    for (int i = 0; i < 40; i += 2) {
      files[static_cast<size_t>(i)].Write(std::to_string(i));
      files[static_cast<size_t>(i)].Commit();
    }
  }
  EXPECT_EQ(dir.Names().size(), 20u);
  EXPECT_EQ(ReadBytes(dir / "38"), "38");
}

TEST(OutputFile, WritesThroughSymlinks) {
  struct Case {
    const char *link, *to;
  };
  for (const Case& c : {Case{"relative", "sub/file"}, Case{"dangling", "sub/none"},
                        Case{"up", "sub/../file"}, Case{"chain", "sub/relay"}}) {
    SCOPED_TRACE(c.link);
    for (const bool absolute : {false, true}) {
      TempDir dir;
      fs::create_directory(dir / "sub");
      WriteBytes(dir / "sub/file", "old");
      WriteBytes(dir / "file", "old");
      fs::create_symlink("file", dir / "sub/relay");
      fs::create_symlink(absolute ? dir / c.to : c.to, dir / c.link);
      WriteFile(dir / c.link, "new");
      EXPECT_TRUE(fs::is_symlink(dir / c.link));
      EXPECT_TRUE(fs::is_symlink(dir / "sub/relay"));
      EXPECT_EQ(ReadBytes(dir / c.to), "new");
      EXPECT_EQ(dir.Names().size(), 3u);
    }
  }
}

TEST(OutputFile, FollowsASymlinkInTheCurrentFolder) {
  TempDir dir;
  const fs::path before = fs::current_path();
  fs::current_path(dir.path());
  fs::create_symlink("target", "link");
  WriteFile("link", "new");
  fs::current_path(before);
  EXPECT_EQ(ReadBytes(dir / "target"), "new");
  EXPECT_TRUE(fs::is_symlink(dir / "link"));
}

TEST(OutputFile, RefusesAtOnceWhatCannotBeWritten) {
  TempDir dir;
  WriteBytes(dir / "file", "old");
  fs::create_directory(dir / "folder");
  fs::create_symlink("folder", dir / "to_folder");
  fs::create_symlink("loop_b", dir / "loop_a");
  fs::create_symlink("loop_a", dir / "loop_b");
  const Names before = dir.Names();
  const struct {
    std::string path;
    const char* why;
  } cases[] = {{"", "empty"},
               {dir / "folder", "directory"},
               {dir / "folder/", "directory"},
               {dir / "to_folder", "directory"},
               {dir / "none/file", "No such file"},
               {dir / "file/file", "Not a directory"},
               {dir / "loop_a", "symbolic links"},
               {dir / std::string(300, 'n'), "too long"}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.path);
    const auto error = ErrorOf([&] { OutputFile out(c.path); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code(), kUsage);
    EXPECT_TRUE(std::string_view(error->what()).starts_with(c.path.empty() ? "an" : c.path))
        << error->what();
    EXPECT_NE(std::string_view(error->what()).find(c.why), std::string_view::npos) << error->what();
  }
  EXPECT_EQ(dir.Names(), before);
  EXPECT_TRUE(fs::is_symlink(dir / "loop_a"));
}

TEST(OutputFile, RefusesWhatPermissionsForbid) {
  TempDir dir;
  fs::permissions(dir.path(), fs::perms::all);
  for (const char* folder : {"open", "closed"}) {
    fs::create_directory(dir / folder);
    fs::permissions(dir / folder, fs::perms::all);
  }
  fs::permissions(WriteBytes(dir / "open/read_only", "old"), fs::perms::owner_read);
  fs::permissions(WriteBytes(dir / "closed/file", "old"), fs::perms::all);
  fs::permissions(dir / "closed", fs::perms::owner_read | fs::perms::owner_exec |
                                      fs::perms::others_read | fs::perms::others_exec);
  {
    const Unprivileged somebody;
    for (const char* name : {"open/read_only", "closed/file", "closed/new"}) {
      const auto error = ErrorOf([&] { OutputFile out(dir / name); });
      ASSERT_TRUE(error) << name;
      EXPECT_EQ(error->code(), kUsage);
      EXPECT_NE(std::string_view(error->what()).find("Permission denied"), std::string_view::npos);
    }
  }
  fs::permissions(dir / "closed", fs::perms::all);
  EXPECT_EQ(ReadBytes(dir / "closed/file"), "old");
  EXPECT_FALSE(fs::exists(dir / "closed/new"));
}

TEST(OutputFile, HasTheModeOfTheOldFileOrOfTheUmask) {
  TempDir dir;
  WriteBytes(dir / "old", "old");
  chmod((dir / "old").c_str(), 0604);
  const mode_t before = umask(027);
  WriteFile(dir / "old", "new");
  WriteFile(dir / "new", "new");
  umask(before);
  EXPECT_EQ(ModeOf(dir / "old"), 0604u);
  EXPECT_EQ(ModeOf(dir / "new"), 0640u);
}

TEST(OutputFile, WritesToADeviceDirectly) {
  WriteFile("/dev/null", std::string(200000, 'x'));
  OutputFile full("/dev/full");
  full.Write("a");
  for (const auto& write : {std::function([&] { full.Commit(); }),
                            std::function([&] { full.Write(std::string(200000, 'x')); })}) {
    const auto error = ErrorOf(write);
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code(), kUsage);
    EXPECT_STREQ(error->what(), "/dev/full: cannot write: No space left on device");
  }
}

class Pipe {
 public:
  Pipe() { EXPECT_EQ(pipe2(ends_, O_CLOEXEC), 0); }
  ~Pipe() {
    CloseReader();
    close(ends_[1]);
  }
  void CloseReader() { close(std::exchange(ends_[0], -1)); }
  // As a shell names a process substitution.
  std::string path() const { return "/dev/fd/" + std::to_string(ends_[1]); }
  std::string Read() {
    char buffer[100];
    const ssize_t n = read(ends_[0], buffer, sizeof buffer);
    return {buffer, n > 0 ? static_cast<size_t>(n) : 0};
  }

 private:
  int ends_[2] = {-1, -1};
};

TEST(OutputFile, WritesToAPipeDirectly) {
  Pipe pipe;
  WriteFile(pipe.path(), "through");
  EXPECT_EQ(pipe.Read(), "through");
}

TEST(OutputFile, APipeWithoutAReaderIsSilent) {
  Pipe pipe;
  const auto before = std::signal(SIGPIPE, SIG_IGN);
  OutputFile out(pipe.path());
  pipe.CloseReader();
  out.Write("nobody");
  const auto error = ErrorOf([&] { out.Commit(); });
  std::signal(SIGPIPE, before);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), kClosedPipe);
  EXPECT_STREQ(error->what(), "");
}

TEST(OutputFile, DashIsStandardOutput) {
  testing::internal::CaptureStdout();
  WriteFile("-", "hello");
  PrintOut(" again");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "hello again");
}

TEST(OutputFile, SaysSoWhenItsFolderHasGone) {
  TempDir dir;
  fs::create_directory(dir / "sub");
  OutputFile out(dir / "sub/f");
  fs::remove_all(dir / "sub");
  const auto error = ErrorOf([&] { out.Commit(); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), kUsage);
  EXPECT_NE(std::string_view(error->what()).find("cannot rename"), std::string_view::npos);
}

}  // namespace
}  // namespace lab
