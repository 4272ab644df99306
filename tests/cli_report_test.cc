// lab report as a user runs it.
#include "tests/cli_run.h"

namespace lab::cli_test {
namespace {

TEST(CliReport, OnePageOfTracesAndResults) {
  const TempDir dir;
  const Strings trace = {"forward", "--model", "tiny", "--tokens", "1,2,3", "--backend"};
  const std::string a = dir / "a.jsonl", b = dir / "b.jsonl";
  ASSERT_EQ(RunLab(trace + Strings{"ref", "--trace=" + a}).code, 0);
  ASSERT_EQ(RunLab(trace + Strings{"ref", "--trace=" + b, "--use", "silu@3=mutant:gelu"}).code, 0);
  const Result bisect = RunLab({"bisect", "--model", "tiny", "--tokens", "1,2", "--layers", "3",
                                "--use", "silu@3=mutant:gelu", "--format", "jsonl"});
  ASSERT_EQ(bisect.code, 1);
  const std::string steps = WriteBytes(dir / "steps.jsonl", bisect.out), page = dir / "r.html";
  const Result r = RunLab({"report", a, b, steps, "-o", page});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.out + r.err, "");
  const std::string html = ReadBytes(page);
  EXPECT_LT(html.size(), 3'000'000u);
  ExpectHas(html, {"A and B: different from L03.ffn_silu on", "bisect: wrong from L03.silu on",
                   "Two runs apart", "Local error", "lab bisect --model tiny"});
  const Result md = RunLab({"report", a, b, steps, "--format", "md"});
  EXPECT_EQ(md.code, 0) << md.err;
  ExpectHas(md.out, {"## ", "- FAIL: **bisect: wrong from L03.silu on**", "| where |"});
}

TEST(CliReport, RefusesAndLeavesNoFile) {
  const TempDir dir;
  const std::string other = WriteBytes(dir / "other", "hello\n"), page = dir / "r.html";
  const Case kCases[] = {
      {{"report"}, 2, {"FILE"}},
      {{"report", other, "-o", page}, 2, {other + ": nothing that lab report knows"}},
      {{"report", dir / "none", "-o", page}, 2, {"none"}},
      {{"report", other, "--format", "pdf"}, 2, {"--format", "pdf"}},
      {{"report", other, "-o", "/nonexistent/r.html"}, 2, {"/nonexistent/r.html"}},
  };
  ExpectFails(kCases);
  EXPECT_EQ(dir.Names(), Strings{"other"});
}

// Parts of a run made on several machines.
TEST(CliReport, JoinsTheShardsOfBlame) {
  const TempDir dir;
  Strings files;
  for (const char* shard : {"2/2", "1/2"}) {
    const Result r =
        RunLab({"bisect", "--model", "tiny", "--tokens", "1,2", "--blame", "--contract", "q8",
                "--layers", "4", "--shard", shard, "--format", "jsonl"});
    ASSERT_EQ(r.code, 0) << r.err;
    files.push_back(WriteBytes(dir / std::string(1, shard[0]), r.out));
  }
  const Result whole = RunLab(Strings{"report", "--format", "md"} + files);
  EXPECT_EQ(whole.code, 0) << whole.err;
  ExpectHas(whole.out, {"L04.down\\_proj", "L04.q\\_proj", "parts: 2, joined"});
  ExpectFails(RunLab({"report", files[0]}), 2,
              {"part 1/2 of its run is missing; make it: lab "
               "bisect",
               "--shard 1/2"});
  ExpectFails(RunLab({"bisect", "--model", "tiny", "--tokens", "1,2", "--blame", "--contract", "q8",
                      "--layers", "4", "--shard", "7/7"}),
              2, {"there are only 6 steps"});
}

}  // namespace
}  // namespace lab::cli_test
