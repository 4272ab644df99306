// The command line: outputs that cannot be written, closed pipes, signals.
#include "tests/cli_run.h"

namespace lab::cli_test {
namespace {

// --- outputs ---

TEST(CliOutput, FoundUnwritableBeforeAnythingIsComputed) {
  TempDir dir;
  WriteBytes(dir / "file", "old");
  fs::create_directory(dir / "folder");
  const Strings before = dir.Names();
  for (const std::string flag : {"--trace=", "--dump="}) {
    for (const auto& [path, why] :
         {std::pair(dir / "none/t", "No such file or directory"),
          std::pair(dir / "folder", "Is a directory"), std::pair(dir / "file/t", "Not a directory"),
          std::pair(std::string("/proc/t"), "cannot create a file")}) {
      SCOPED_TRACE(flag + path);
      // Two thousand tokens take minutes; the limit of Finish is far below.
      Process run(kShort + Strings{"-n", "2000", "--ignore-eos", flag + path});
      run.Start();
      ExpectFails(run.Finish(std::chrono::seconds(20)), 2, {path + ": ", why});
    }
  }
  EXPECT_EQ(dir.Names(), before);
}

TEST(CliOutput, AFullDevice) {
  for (const Strings& args :
       {kShort + Strings{"--trace=/dev/full"}, kShort + Strings{"--dump", "/dev/full"},
        Strings{"synth", "tiny", "-o", "/dev/full"}})
    ExpectFails(RunLab(args), 2, {"/dev/full: cannot write: No space left on device"});
}

TEST(CliOutput, StandardOutputThatCannotBeWritten) {
  for (const Strings& args : {Strings{"--version"}, Strings{"--help"}, Strings{"list", "taps"},
                              kShort, kShort + Strings{"--trace=-"}, Strings{"inspect", "tiny"},
                              Strings{"tokenize", "--model", "tiny", "--prompt", "x"}}) {
    SCOPED_TRACE(args[0]);
    Process full(args);
    ExpectFails(full.Connect(STDOUT_FILENO, "/dev/full", O_WRONLY)(), 2, {"No space left"});
    Process closed(args);
    ExpectFails(closed.Close(STDOUT_FILENO)(), 2, {"Bad file descriptor"});
  }
}

// With no standard output, the next file that opens must not take its place.
TEST(CliOutput, NoTextGoesIntoADumpInsteadOfAClosedStream) {
  for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) {
    TempDir dir;
    Process run({"forward", "--tokens", "1,2", "-n", "2", "--ignore-eos", "--dump", dir / "d"});
    const int code = run.Env("LAB_MODEL", "tiny").Close(stream)().code;
    EXPECT_EQ(code, stream == STDOUT_FILENO ? 2 : 0);
    if (code == 0) {
      EXPECT_NE(Safetensors(dir / "d").Find("lm_head"), nullptr);
    } else {
      EXPECT_EQ(dir.Names(), Strings());
    }
  }
}

TEST(CliOutput, ALogThatCannotBeWrittenChangesNoExitCode) {
  const struct {
    Strings args;
    int code;
  } cases[] = {{{"nope"}, 2}, {{"forward", "--tokens", "1"}, 0}, {{"list", "nope"}, 2}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.args[0]);
    EXPECT_EQ(Process(c.args).Connect(STDERR_FILENO, "/dev/full", O_WRONLY)().code, c.code);
    EXPECT_EQ(Process(c.args).Close(STDERR_FILENO)().code, c.code);
  }
}

// A pipe whose reader has gone.
class ClosedPipe {
 public:
  ClosedPipe() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    close(ends[0]);
    writer_ = ends[1];
  }
  ~ClosedPipe() { close(writer_); }
  int writer() const { return writer_; }

 private:
  int writer_;
};

TEST(CliOutput, AClosedPipeEndsTheRunSilently) {
  for (const Strings& args :
       {Strings{"--version"}, Strings{"list", "taps"}, kShort, kShort + Strings{"--trace=-"},
        kShort + Strings{"--trace=/dev/stdout"}, kShort + Strings{"-n", "2000", "--ignore-eos"},
        kShort + Strings{"--format", "jsonl"}, kShort + Strings{"--dump=-"},
        Strings{"synth", "tiny", "-o", "-"},
        Strings{"bench", "--model", "tiny", "--benchmark_filter=silu",
                "--benchmark_min_time=0.001"}}) {
    SCOPED_TRACE(args[0] + " " + args.back());
    ClosedPipe pipe;
    const Result r = Process(args).Connect(STDOUT_FILENO, pipe.writer())();
    EXPECT_EQ(r.code, 141);
    EXPECT_TRUE(r.err.empty() || args[0] == "bench") << r.err;
  }
}

TEST(CliOutput, ReplacesAFileAlsoThroughASymlink) {
  TempDir dir;
  WriteBytes(dir / "file", "old");
  fs::create_symlink("file", dir / "link");
  const Result r = RunLab(kShort + Strings{"--trace=" + (dir / "link")});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(fs::is_symlink(dir / "link"));
  EXPECT_EQ(Records(ReadBytes(dir / "file")).at(0)["kind"], "header");
  EXPECT_EQ(dir.Names(), Strings({"file", "link"}));
}

TEST(CliOutput, AFailedRunLeavesTheOldFile) {
  TempDir dir;
  const std::string old = WriteBytes(dir / "file", "old");
  const Case cases[] = {
      {kShort + Strings{"--trace=" + old, "--dump", "/dev/full"}, 2, {"/dev/full"}},
      {kShort + Strings{"--dump", old, "--trace=/none/t"}, 2, {"/none/t"}},
      {kShort + Strings{"--trace=" + old, "--taps", "nope"}, 3, {"nope"}},
      {kForward + Strings{"--prompt", "", "--dump", old}, 2, {"empty"}},
      {{"synth", "tinny", "-o", old}, 2, {"tinny"}}};
  ExpectFails(cases);
  EXPECT_EQ(ReadBytes(old), "old");
  EXPECT_EQ(dir.Names(), Strings{"file"});
}

// --- signals ---

TEST(CliSignal, LeavesNoTemporaryAndTheOldFile) {
  const struct { int signal, code; } cases[] = {{SIGINT, 130}, {SIGTERM, 143}, {SIGHUP, 129}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.signal);
    TempDir dir;
    WriteBytes(dir / "old", "old");
    Process run(kShort + Strings{"-n", "2000", "--ignore-eos", "--trace=" + (dir / "old"), "--dump",
                                 dir / "new"});
    run.Start();
    ASSERT_TRUE(WaitForAFile(dir, 3));
    run.Signal(c.signal);
    EXPECT_EQ(run.Finish().code, c.code);
    EXPECT_EQ(dir.Names(), Strings{"old"});
    EXPECT_EQ(ReadBytes(dir / "old"), "old");
  }
}

TEST(CliSignal, HangupIsIgnoredUnderNohup) {
  TempDir dir;
  Process run(kShort + Strings{"-n", "15", "--ignore-eos", "--dump", dir / "d"});
  run.IgnoreHangup().Start();
  ASSERT_TRUE(WaitForAFile(dir, 1));
  run.Signal(SIGHUP);
  EXPECT_EQ(run.Finish().code, 0);
  EXPECT_EQ(dir.Names(), Strings{"d"});
}

}  // namespace
}  // namespace lab::cli_test
