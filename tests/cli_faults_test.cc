// The command line when the machine is against it: killed, out of disk or memory, files that change
// under a run, two runs at once, odd terminals, locales and clocks.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <fstream>
#include <random>

#include "tests/cli_run.h"

namespace lab::cli_test {
namespace {

using std::chrono::milliseconds;

// A run that goes on until somebody ends it.
const Strings kEndless = kShort + Strings{"-n", "30000", "--ignore-eos"};

milliseconds Since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - begin);
}

void RemoveTemporaries(const TempDir& dir) {
  for (const std::string& name : dir.Names())
    if (name.ends_with(".tmp")) fs::remove(dir / name);
}

// --- ends ---

// The moments are spread over a little more than the time that a run takes, so that some kills find
// it computing, some writing, and some too late; the last run is left alone.
TEST(CliFault, KilledAtAnyMomentLeavesTheOldFileOrTheWholeNewOne) {
  TempDir dir;
  const std::string path = dir / "t";
  const Strings args = {"forward",         "--model",   "tiny", "--tokens",
                        "1,2,3,4,5,6,7,8", "--threads", "1",    "--trace=" + path};
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(RunLab(args).code, 0);
  const milliseconds whole_run = Since(begin);
  const std::string whole = ReadBytes(path);

  std::mt19937 random(1);
  const int kills = kSanitized ? 40 : 200;
  int old_files = 0, new_files = 0;
  for (int i = 0; i <= kills; ++i) {
    WriteBytes(path, "old");
    Process run(args);
    run.Start();
    if (i < kills) {
      std::this_thread::sleep_for(std::chrono::microseconds(random() % (whole_run * 1200).count()));
      run.Signal(SIGKILL);
    }
    run.Finish();
    const std::string now = ReadBytes(path);
    ASSERT_TRUE(now == "old" || now == whole) << "kill " << i << " left " << now.size() << " bytes";
    ++(now == "old" ? old_files : new_files);
    RemoveTemporaries(dir);
    ASSERT_EQ(dir.Names(), Strings{"t"});
  }
  EXPECT_GT(old_files, 0);
  EXPECT_GT(new_files, 0);
}

// True when the process handles SIGINT, within the limit of a hang.
bool WaitUntilItHandlesInterrupts(pid_t pid) {
  for (int i = 0; i < 10000; ++i) {
    std::ifstream status(fmt::format("/proc/{}/status", pid));
    for (std::string line; std::getline(status, line);)
      if (line.starts_with("SigCgt:") &&
          (std::stoull(line.substr(7), nullptr, 16) >> (SIGINT - 1) & 1))
        return true;
    std::this_thread::sleep_for(milliseconds(2));
  }
  return false;
}

// A busy machine delays some ends, not all of them: the quickest of up to 20 counts.
TEST(CliFault, AnInterruptEndsEveryVerbWithin200Milliseconds) {
  const Strings tiny = {"--model", "tiny"};
  std::string text;
  for (int i = 0; i < 50; ++i) text += "word ";  // 250 tokens; bisect takes up to 256
  for (const Strings& args :
       {Strings{"forward", "--backend", "oracle", "--prompt", text, "--trace=t", "--dump=d"} + tiny,
        Strings{"check", "--forward", "--prompt", text} + tiny,
        Strings{"bisect", "--prompt", text, "-o", "c"} + tiny,
        Strings{"capture", "--prompt", text, "-o", "c"} + tiny,
        Strings{"bench", "--benchmark_min_time=100"} + tiny}) {
    SCOPED_TRACE(args[0]);
    TempDir dir;
    milliseconds quickest = milliseconds::max();
    for (int i = 0; i < 20 && quickest > milliseconds(200); ++i) {
      Process run(args);
      run.In(dir.path()).Start();
      ASSERT_TRUE(WaitUntilItHandlesInterrupts(run.pid()));
      std::this_thread::sleep_for(milliseconds(50 + 10 * i));
      const auto begin = std::chrono::steady_clock::now();
      run.Signal(SIGINT);
      EXPECT_EQ(run.Finish().code, 130);
      quickest = std::min(quickest, Since(begin));
      EXPECT_EQ(dir.Names(), Strings());
    }
    EXPECT_LE(quickest, milliseconds(200));
  }
}

// --- disks ---

// What writes a file of some size, with the name that it writes.
struct Writer {
  Strings args;
  std::string name;
};
std::vector<Writer> Writers(const std::string& folder) {
  return {{kShort + Strings{"--trace=" + folder + "/f"}, "f"},
          {kShort + Strings{"--dump", folder + "/f"}, "f"},
          {{"synth", "tiny", "-o", folder + "/f"}, "f"},
          {{"capture", "--model", "tiny", "--rows", "8", "-o", folder + "/f"}, "f.safetensors"}};
}

TEST(CliFault, AFileThatMayNotGrowFurther) {
  TempDir dir;
  for (const Writer& w : Writers(dir.path())) {
    SCOPED_TRACE(w.args[0] + " " + w.args.back());
    WriteBytes(dir / w.name, "old");
    Process run(w.args);
    ExpectFails(run.After("ulimit -f 8")(), 2, {dir / w.name, "cannot write: File too large"});
    EXPECT_EQ(dir.Names(), Strings{w.name});
    EXPECT_EQ(ReadBytes(dir / w.name), "old");
    fs::remove(dir / w.name);
  }
}

// On a file system of 64 KB that exists for this process alone; prints the exit code and what is
// there afterwards.
Result OnATmpfs(const Writer& w, const std::string& dir, const std::string& options) {
  return Process(w.args).Shell(
      fmt::format("exec unshare -Urm sh -c '"
                  "mount -t tmpfs -o size=64k none {0} && echo old > {0}/{1} && {2} || exit 99;"
                  "\"$0\" \"$@\"; echo $? $(ls {0}) $(cat {0}/{1})' \"$0\" \"$@\"",
                  dir, w.name, options))();
}

TEST(CliFault, AFullOrReadOnlyFileSystem) {
  TempDir dir;
  if (Process({}).Shell("unshare -Urm mount -t tmpfs none " + dir.path())().code != 0)
    GTEST_SKIP() << "this system lets nobody mount a tmpfs in a namespace of their own";
  for (const Writer& w : Writers(dir.path())) {
    SCOPED_TRACE(w.args[0] + " " + w.args.back());
    const std::string path = dir / w.name;
    const Result full = OnATmpfs(w, dir.path(), "true");
    EXPECT_EQ(full.out, "2 " + w.name + " old\n");
    EXPECT_EQ(full.err, "lab: " + path + ": cannot write: No space left on device\n");
    const Result read_only = OnATmpfs(w, dir.path(), "mount -o remount,ro " + dir.path());
    EXPECT_EQ(read_only.out, "2 " + w.name + " old\n");
    EXPECT_EQ(Lines(read_only.err).size(), 1u);
    ExpectHas(read_only.err, {"Read-only file system"});
  }
}

TEST(CliFault, AModelThatBecomesShorter) {
  for (const Strings& args : {Strings{"forward", "--backend", "ref", "-n", "30000", "--ignore-eos"},
                              Strings{"forward", "--backend", "hwy", "--contract", "f32", "-n",
                                      "30000", "--ignore-eos", "--threads", "4"}}) {
    TempDir dir;
    const std::string model = WriteTiny(dir / "m");
    WriteBytes(dir / "t", "old");
    Process run(args + Strings{"--model", model, "--trace=" + (dir / "t")});
    run.Start();
    ASSERT_TRUE(WaitForAFile(dir, 3));
    fs::resize_file(model, 5000);
    ExpectFails(run.Finish(), 2, {model + ": cannot read: the file has become shorter"});
    EXPECT_EQ(dir.Names(), Strings({"m", "t"}));
    EXPECT_EQ(ReadBytes(dir / "t"), "old");
  }
}

// --- memory ---

// From less than the program itself takes to more than the run needs. Each must end as a run or
// with one line: no abort, no uncaught exception, no file.
TEST(CliFault, TooLittleMemory) {
  if (kSanitized) GTEST_SKIP() << "the address sanitizer needs terabytes of address space";
  const Strings runs[] = {
      {"forward", "--threads", "1", "-n", "4", "--ignore-eos", "--trace=t"},
      {"forward", "--threads", "16", "-n", "4", "--ignore-eos", "--dump=d", "--backend", "ref"},
      {"capture", "--threads", "4", "--rows", "8", "-o", "c"}};
  for (const Strings& args : runs) {
    std::map<int, int> codes;
    for (int megabytes = 16; megabytes < 2048; megabytes += megabytes / 2) {
      SCOPED_TRACE(fmt::format("{} {} MB", fmt::join(args, " "), megabytes));
      const std::string limit = fmt::format("ulimit -v {}", megabytes << 10);
      if (Process({"--version"}).After(limit)().code != 0) continue;  // no room for the program
      TempDir dir;
      const Result r =
          Process(args + Strings{"--model", "tiny"}).After("cd " + dir.path() + " && " + limit)();
      ++codes[r.code];
      if (r.code == 0) continue;
      ExpectFails(r, 125, {});
      EXPECT_EQ(dir.Names(), Strings());
    }
    EXPECT_GT(codes[0], 0);
    EXPECT_GT(codes[125], 0);
  }
}

// --- pipes ---

TEST(CliFault, AFifoGetsTheWholeFileAndStaysAFifo) {
  TempDir dir;
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  for (const Strings& args :
       {kShort + Strings{"--trace=" + (dir / "fifo")}, kShort + Strings{"--dump", dir / "fifo"},
        Strings{"synth", "tiny", "-o", dir / "fifo"}}) {
    SCOPED_TRACE(args.back());
    Process run(args);
    const Result r = run.Shell("cat " + (dir / "fifo") + " | cksum & \"$0\" \"$@\" >&2 && wait")();
    EXPECT_EQ(r.code, 0);
    Strings to_file = args;
    to_file.back() = to_file.back().substr(0, to_file.back().rfind('/')) + "/file";
    Process again(to_file);
    const Result file = again.Shell("\"$0\" \"$@\" >&2 && cksum < " + (dir / "file"))();
    EXPECT_TRUE(fs::is_fifo(dir / "fifo"));
    if (args.back().starts_with("--trace")) continue;  // its header holds the command line
    EXPECT_EQ(r.out, file.out);
  }
}

// --- two at once ---

TEST(CliFault, OfTwoRunsIntoOneTraceOneStays) {
  TempDir dir;
  const auto args = [&](const char* tokens) {
    return kForward + Strings{"--tokens", tokens, "--trace=" + (dir / "t")};
  };
  std::set<std::string> possible;
  for (const char* tokens : {"1", "2,3"}) {
    RunLab(args(tokens));
    possible.insert(ReadBytes(dir / "t"));
  }
  ASSERT_EQ(possible.size(), 2u);
  for (int i = 0; i < 5; ++i) {
    Process a(args("1")), b(args("2,3"));
    a.Start();
    b.Start();
    EXPECT_EQ(a.Finish().code, 0);
    EXPECT_EQ(b.Finish().code, 0);
    EXPECT_TRUE(possible.contains(ReadBytes(dir / "t")));
    EXPECT_EQ(dir.Names(), Strings{"t"});
  }
}

// A case file is two files; those of different runs do not fit each other.
TEST(CliFault, OfTwoCapturesIntoOnePlaceOneStays) {
  TempDir dir;
  const auto args = [&](const char* tokens) {
    return Strings{"capture",  "--model", "tiny", "--rows", "8",
                   "--tokens", tokens,    "-o",   dir / "c"};
  };
  for (int i = 0; i < 10; ++i) {
    Process a(args("1,2")), b(args("3,4"));
    a.Start();
    b.Start();
    EXPECT_EQ(a.Finish().code, 0);
    EXPECT_EQ(b.Finish().code, 0);
    EXPECT_EQ(dir.Names(), Strings({"c.safetensors", "c.toml"}));
    const Result check = RunLab({"check", "--cases", dir.path(), "--op", "EmbedRef"});
    EXPECT_EQ(check.code, 0) << check.err;
  }
}

// True once the process waits for somebody else's lock; false if the file is there first.
bool WaitsForALock(pid_t pid, const std::string& file) {
  for (int i = 0; i < 10000 && !fs::exists(file); ++i) {
    std::ifstream locks("/proc/locks");
    for (std::string line; std::getline(locks, line);)
      if (line.find("->") != line.npos && line.find(fmt::format(" {} ", pid)) != line.npos)
        return true;
    std::this_thread::sleep_for(milliseconds(2));
  }
  return false;
}

// Chance hardly ever shows two renames of one run between those of another.
TEST(CliFault, ACapturePutsItsFilesInPlaceUnderALock) {
  if (!std::ifstream("/proc/locks")) GTEST_SKIP() << "no /proc/locks here";
  TempDir dir;
  const int folder = open(dir.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ASSERT_EQ(flock(folder, LOCK_EX), 0);
  Process run({"capture", "--model", "tiny", "--rows", "8", "--tokens", "1,2", "-o", dir / "c"});
  run.Start();
  EXPECT_TRUE(WaitsForALock(run.pid(), dir / "c.toml"));
  EXPECT_FALSE(fs::exists(dir / "c.safetensors"));
  close(folder);
  EXPECT_EQ(run.Finish().code, 0);
  EXPECT_EQ(dir.Names(), Strings({"c.safetensors", "c.toml"}));
}

TEST(CliFault, ACaseFileWithTheDataOfAnotherIsRefused) {
  TempDir dir;
  for (const char* tokens : {"1,2", "3,4"})
    ASSERT_EQ(RunLab({"capture", "--model", "tiny", "--rows", "8", "--tokens", tokens, "-o",
                      dir / tokens})
                  .code,
              0);
  fs::rename(dir / "3,4.safetensors", dir / "1,2.safetensors");
  fs::remove(dir / "3,4.toml");
  ExpectFails(RunLab({"check", "--cases", dir.path()}), 2,
              {dir / "1,2.toml", "1,2.safetensors is not the data file of this one"});
}

// --- clocks ---

// Archives and copies keep the time of the last modification; a wrong clock may repeat it.
TEST(CliFault, AModelReplacedInPlaceUnderItsOldTimeIsHashedAgain) {
  TempDir dir;
  const std::string path = WriteTiny(dir / "m");
  const Strings args = {"forward", "--model", path, "--tokens", "1", "--trace=-"};
  const auto hash = [&] {
    Process run(args);
    return Records(run.Env("XDG_CACHE_HOME", dir / "cache")().out).at(0)["sha256"];
  };
  const auto before = fs::last_write_time(path);
  EXPECT_EQ(hash(), Sha256(TinyGguf()));
  std::vector<uint8_t> bytes = TinyGguf();
  bytes.back() ^= 1;
  std::fstream(path, std::ios::in | std::ios::out | std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  fs::last_write_time(path, before);
  EXPECT_EQ(hash(), Sha256(bytes));
}

TEST(CliFault, TimesOutsideAllReason) {
  TempDir dir;
  const std::string path = WriteTiny(dir / "m");
  const Json expected = TopOf(RunLab(kForward + Strings{"--tokens", "1", "--format", "jsonl"}));
  for (const auto& [seconds, name] :
       {std::pair(-1'000'000'000L, "1938"), {0L, "1970"}, {7'000'000'000L, "2191"}}) {
    SCOPED_TRACE(name);
    const timespec times[2] = {{seconds, 0}, {seconds, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
    for (int i = 0; i < 2; ++i) {
      Process run({"forward", "--model", path, "--backend", "ref", "--tokens", "1", "--trace=-"});
      EXPECT_EQ(TopOf(run.Env("XDG_CACHE_HOME", dir / "cache")()), expected);
    }
  }
}

// --- terminals and locales ---

// What a run writes to standard error when that is a terminal of that many columns.
std::string OnATerminal(const Strings& args, unsigned short columns, int* code) {
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  EXPECT_TRUE(grantpt(terminal) == 0 && unlockpt(terminal) == 0);
  const winsize size = {24, columns, 0, 0};
  EXPECT_EQ(ioctl(terminal, TIOCSWINSZ, &size), 0);
  Process run(args);
  run.Connect(STDERR_FILENO, ptsname(terminal), O_RDWR | O_NOCTTY).Start();
  std::string text;
  std::thread reader([&] {
    char buffer[4096];
    for (ssize_t n; (n = read(terminal, buffer, sizeof buffer)) > 0;)
      text.append(buffer, static_cast<size_t>(n));
  });
  *code = run.Finish().code;
  reader.join();  // the read fails once nobody has the other end open
  close(terminal);
  return text;
}

// The lines of these runs have up to 33 characters: in 20 columns they must be cut.
TEST(CliFault, ProgressFitsANarrowTerminal) {
  const std::string kClear = "\r\x1b[K";
  constexpr unsigned short kColumns = 20;
  for (const Strings& args :
       {Strings{"forward", "--model", "tiny", "--prompt", "word word word"},
        Strings{"bisect", "--xray", "Matvec*,GateUpSwigluRows8Q16Hwy", "--model", "tiny", "--use",
                "gate_up_swiglu=mutant:gate_up_swapped"}}) {
    SCOPED_TRACE(args[0]);
    int code = -1;
    const std::string text = OnATerminal(args, kColumns, &code);
    EXPECT_TRUE(code == 0 || code == 1) << text;
    size_t longest = 0;
    for (size_t at = 0; at < text.size();) {
      ASSERT_EQ(text.compare(at, kClear.size(), kClear), 0) << text;
      at += kClear.size();
      const size_t end = std::min(text.find('\r', at), text.size());
      longest = std::max(longest, end - at);
      at = end;
    }
    EXPECT_GT(longest, 0u);
    EXPECT_LT(longest, size_t{kColumns});
    EXPECT_TRUE(text.ends_with(kClear)) << "the last line stays";
  }
}

TEST(CliFault, LocalesChangeNoByte) {
  TempDir dir;
  // Decimal commas; and i, whose capital is another letter.
  Strings locales = {"C", "xx_XX.UTF-8"};
  for (const char* name : {"de_DE", "tr_TR"}) {
    const std::string make =
        fmt::format("localedef -i {0} -f UTF-8 {1}/{0}.UTF-8 >/dev/null 2>&1", name, dir.path());
    if (Process({}).Shell(make)().code == 0) locales.push_back(std::string(name) + ".UTF-8");
  }
  const Strings runs[] = {
      kShort + Strings{"--trace=-"},
      kShort + Strings{"--trace"},
      {"check", "--forward", "--model", "tiny", "--tokens", "1,2", "--format", "csv"},
      {"tokenize", "--model", "tiny", "--prompt", "I\xc4\xb0i 1,5 1.5"},
      {"diff", "tiny", "tiny", "--min-cos", "0.5"},
      {"list", "taps"},
      {"forwrd"},
      kShort + Strings{"--prompt-file", "/none"}};
  for (const Strings& args : runs) {
    SCOPED_TRACE(args[0]);
    const Result plain = RunLab(args);
    for (const std::string& locale : locales) {
      SCOPED_TRACE(locale);
      Process run(args);
      const Result r = run.Env("LC_ALL", locale).Env("LANG", locale).Env("LOCPATH", dir.path())();
      EXPECT_EQ(r.code, plain.code);
      EXPECT_EQ(r.out, plain.out);
      EXPECT_EQ(r.err, plain.err);
    }
  }
  if (locales.size() < 4) GTEST_SKIP() << "no localedef here: only C and an unknown locale tried";
}

}  // namespace
}  // namespace lab::cli_test
