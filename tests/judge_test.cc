// The judge is judged: right results pass, and every way of being wrong fails.
#include "lab/judge.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <functional>

#include "lab/capture.h"
#include "lab/case.h"
#include "lab/cli.h"
#include "lab/device.h"
#include "lab/error.h"
#include "lab/output.h"
#include "lab/simd_target.h"
#include "tests/paths.h"
#include "tests/test_util.h"

namespace lab {
namespace {

const std::vector<Case>& TinyCases() {
  static const std::vector<Case> cases =
      CaptureCases(OpenModel("tiny"), 1, {87, 104, 97, 300, 5}, 0, 0, 1);
  return cases;
}

const Case& CaseOf(Op op) {
  for (const Case& c : TinyCases())
    if (c.op == op) return c;
  throw Error(kInternal, "no such case");
}

// What the yardstick writes for a case, spoilt by `spoil`, judged.
Verdict JudgeSpoilt(const Case& c, Contract contract,
                    const std::function<void(std::deque<GuardedBuffer<float>>&)>& spoil) {
  Binding<float> run(c, contract, false);
  const Row* row = FindRow(c.op, contract, Backend::ref);
  run.Run({row ? row : FindRow(c.op, Contract::f32, Backend::ref)}, 1);
  auto outputs = run.outputs();
  spoil(outputs);
  bool intact = true;
  for (const auto& o : outputs) intact &= o.guards_intact();
  return JudgeOutputs(ExpectedOf(c, contract, false), outputs, intact, 1);
}

TEST(Judge, EveryRowPassesOnEveryTinyCase) {
  size_t judged = 0;
  for (const Case& c : TinyCases()) {
    for (const Row& row : Rows()) {
      if (row.op != c.op || row.backend == Backend::oracle || !WhyNotHere(row).empty()) continue;
      const Verdict v =
          JudgeRow(c, {&row}, ExpectedOf(c, row.contract, false), false, 2, 2, LanesOf(row));
      EXPECT_EQ(v.status, Status::pass) << c.name << " " << row.function << ": " << v.why;
      EXPECT_GT(v.compared, 0u);
      ++judged;
    }
  }
  EXPECT_GT(judged, 30u);
}

TEST(Judge, EveryRowHasACommittedCase) {
  const std::vector<Case> cases = ReadCases(kCasesDir);
  for (const Row& row : Rows())
    EXPECT_TRUE(std::any_of(cases.begin(), cases.end(), [&](const Case& c) {
      return c.op == row.op;
    })) << row.function;
}

struct Spoiler {
  const char* name;
  void (*spoil)(std::deque<GuardedBuffer<float>>&);
};
constexpr Spoiler kSpoilers[] = {
    {"NaN in one element", [](auto& o) { o[0].data()[o[0].size() / 2] = NAN; }},
    {"infinity in one element", [](auto& o) { o[0].data()[1] = INFINITY; }},
    {"last element not written", [](auto& o) { o.back().data()[o.back().size() - 1] = NAN; }},
    {"sign of one element", [](auto& o) { o[0].data()[3] = -o[0].data()[3]; }},
    {"one element off by a thousandth", [](auto& o) { o[0].data()[7] *= 1.001f; }},
    {"zeros", [](auto& o) { std::fill_n(o[0].data(), o[0].size(), 0.0f); }},
    {"one element behind the end", [](auto& o) { o[0].data()[o[0].size()] = 1; }},
    {"one element before the start", [](auto& o) { o[0].data()[-1] = 1; }},
    {"tokens exchanged",
     [](auto& o) {
       std::swap_ranges(o[0].data(), o[0].data() + o[0].n(), o[0].data() + o[0].n());
     }},
    {"an output missing", [](auto& o) { o.pop_back(); }},
};

TEST(Judge, EverySpoiltResultFails) {
  for (const Case& c : TinyCases()) {
    if (c.op == Op::quantize) continue;  // has no f32 row; below
    for (const Spoiler& s : kSpoilers) {
      const Verdict v = JudgeSpoilt(c, Contract::f32, s.spoil);
      EXPECT_EQ(v.status, Status::fail) << c.name << ": " << s.name;
      EXPECT_FALSE(v.why.empty());
    }
  }
  for (const Contract contract : {Contract::q8, Contract::q16})
    for (const Op op : {Op::quantize, Op::matvec, Op::gate_up})
      for (const Spoiler& s : kSpoilers)
        EXPECT_EQ(JudgeSpoilt(CaseOf(op), contract, s.spoil).status, Status::fail)
            << NameOf(op) << ": " << s.name;
}

TEST(Judge, UnspoiltResultsPass) {
  for (const Case& c : TinyCases()) {
    const Contract contract = c.op == Op::quantize ? Contract::q8 : Contract::f32;
    EXPECT_EQ(JudgeSpoilt(c, contract, [](auto&) {}).status, Status::pass) << c.name;
  }
}

TEST(Judge, GateAndUpExchangedFail) {
  const Verdict v = JudgeSpoilt(CaseOf(Op::gate_up), Contract::f32, [](auto& o) {
    std::swap_ranges(o[0].data(), o[0].data() + o[0].size(), o[1].data());
  });
  EXPECT_EQ(v.status, Status::fail);
}

// A q8 result under the f32 contract is a method error of half a percent: not right there, right
// here.
TEST(Judge, ContractsAreToldApart) {
  const Case& c = CaseOf(Op::matvec);
  Binding<float> run(c, Contract::q8, false);
  run.Run({FindRow(Op::matvec, Contract::q8, Backend::ref)}, 1);
  const auto q8 = ExpectedOf(c, Contract::q8, false), f32 = ExpectedOf(c, Contract::f32, false);
  EXPECT_EQ(JudgeOutputs(q8, run.outputs(), true, 1).status, Status::pass);
  EXPECT_EQ(JudgeOutputs(f32, run.outputs(), true, 1).status, Status::fail);
  const double method = MethodError(q8, f32);
  EXPECT_GT(method, 1e-4);
  EXPECT_LT(method, 5e-2);
}

TEST(Judge, NothingComparedFails) {
  EXPECT_EQ(JudgeOutputs({}, {}, true, 1).status, Status::fail);
}

TEST(Judge, NonFiniteMustMatch) {
  Case c = CaseOf(Op::silu);
  c.x[4] = NAN;
  EXPECT_EQ(JudgeSpoilt(c, Contract::f32, [](auto&) {}).status, Status::pass);
  EXPECT_EQ(JudgeSpoilt(c, Contract::f32, [](auto& o) { o[0].data()[4] = 0; }).status,
            Status::fail);
}

TEST(Judge, ExactMeansTheSignOfZeroToo) {
  Case c = CaseOf(Op::residual_add);
  c.x[0] = c.x2[0] = -0.0f;
  EXPECT_EQ(JudgeSpoilt(c, Contract::f32, [](auto&) {}).status, Status::pass);
  EXPECT_EQ(JudgeSpoilt(c, Contract::f32, [](auto& o) { o[0].data()[0] = 0.0f; }).status,
            Status::fail);
}

TEST(CaseFiles, ComeBackAsTheyWere) {
  CaseFile file;
  file.model = "tiny";
  file.ids = {1, 2, 3};
  file.cases = TinyCases();
  const std::string stem = testing::TempDir() + "lab_cases_" + std::to_string(getpid());
  WriteCaseFile(stem, file);
  const CaseFile again = ReadCaseFile(stem + ".toml");
  ASSERT_EQ(again.cases.size(), file.cases.size());
  EXPECT_EQ(again.ids, file.ids);
  for (size_t i = 0; i < file.cases.size(); ++i) {
    const Case &a = file.cases[i], &b = again.cases[i];
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(a.op, b.op);
    EXPECT_EQ(a.x, b.x);
    EXPECT_EQ(a.k, b.k);
    EXPECT_EQ(a.eps, b.eps);
    ASSERT_EQ(a.w.bytes(), b.w.bytes());
    EXPECT_TRUE(std::equal(a.w.data, a.w.data + a.w.bytes(), b.w.data));
  }
  for (const char* ending : {".toml", ".safetensors"}) std::remove((stem + ending).c_str());
}

// Runs the verb in this process; returns its exit code and what it printed.
std::pair<int, std::string> RunCheck(std::vector<std::string> args) {
  args.insert(args.begin(), "check");
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  testing::internal::CaptureStdout();
  int code;
  try {
    code = CmdCheck(static_cast<int>(argv.size()), argv.data());
  } catch (const Error& error) {
    code = error.code();
  }
  return {code, testing::internal::GetCapturedStdout()};
}

TEST(CheckVerb, CommittedCasesPassOnEveryTarget) {
  const auto [code, out] = RunCheck({"--cases", kCasesDir, "--repeat", "2"});
  EXPECT_EQ(code, kPass) << out;
  EXPECT_NE(out.find(" passed, 0 failed"), std::string::npos) << out;
}

TEST(CheckVerb, ExitCodes) {
  const std::string cases = kCasesDir;
  EXPECT_EQ(RunCheck({"--cases", cases, "--case", "nosuch"}).first, kNotComparable);
  EXPECT_EQ(RunCheck({"--cases", cases, "--op", "nosuch"}).first, kNotComparable);
  EXPECT_EQ(RunCheck({"--cases", cases, "--op", "silu", "--backend", "cuda"}).first,
            Cuda().problem.empty() ? kPass : kCannotRun);
  EXPECT_EQ(RunCheck({"--cases", cases, "--target", "NOSUCH"}).first, kUsage);
  EXPECT_EQ(RunCheck({"--cases", cases, "--contract", "q7"}).first, kUsage);
  EXPECT_EQ(RunCheck({"--cases", cases, "--repeat", "0"}).first, kUsage);
  EXPECT_EQ(RunCheck({"--cases", cases + "/nosuch"}).first, kUsage);
  EXPECT_EQ(RunCheck({"--model", "tiny", "--layer", "28"}).first, kUsage);
}

TEST(CheckVerb, RequiredBackendsShardsAndFormats) {
  const std::string cases = kCasesDir;
  EXPECT_EQ(RunCheck({"--cases", cases, "--op", "silu", "--require", "cuda"}).first,
            Cuda().problem.empty() ? kPass : kCannotRun);
  EXPECT_EQ(RunCheck({"--cases", cases, "--op", "silu", "--require", "hwy"}).first, kPass);
  for (const char* shard : {"0/2", "3/2", "1", "1/", "/", "1/2x", "-1/2", "-1/-1", " 1/2", "1/ 2"})
    EXPECT_EQ(RunCheck({"--cases", cases, "--shard", shard}).first, kUsage) << shard;
  EXPECT_EQ(RunCheck({"--cases", cases, "--use", "silu=SiluRef"}).first, kUsage);
  EXPECT_EQ(RunCheck({"--cases", cases, "--op", "silu", "--use", "silu=mutant:gelu"}).first,
            kNumericFailure);
  EXPECT_TRUE(RunCheck({"--cases", cases, "--op", "silu", "--format", "md"})
                  .second.starts_with("| verdict | row |"));
  EXPECT_TRUE(RunCheck({"--cases", cases, "--op", "silu", "--format", "csv"})
                  .second.starts_with("verdict,row,"));
}

TEST(CheckVerb, ShardsMergeIntoTheWhole) {
  const std::string cases = kCasesDir;
  const std::vector<std::string> args = {"--cases",   cases,   "--op",
                                         "silu,rope", "--use", "silu=mutant:gelu"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), args.begin(), args.end());
    return RunCheck(more);
  };
  const std::string whole = with({"--worst"}).second;
  std::vector<std::string> merge = {"--worst"};
  for (const char* shard : {"1/3", "2/3", "3/3"}) {
    const std::string path =
        testing::TempDir() + "lab_shard_" + shard[0] + std::to_string(getpid());
    OutputFile out(path);
    out.Write(with({"--shard", shard, "--format", "jsonl"}).second);
    out.Commit();
    merge.insert(merge.end(), {"--merge", path});
  }
  const auto [code, merged] = RunCheck(merge);
  EXPECT_EQ(RunCheck({merge.begin(), merge.end() - 2}).first, kUsage);  // a part is missing
  EXPECT_EQ(RunCheck({"--merge", merge[2], merge[2], merge[4], merge[6]}).first, kUsage);
  EXPECT_EQ(RunCheck({"--cases", cases, "--shard", "1/9999"}).first, kUsage);
  EXPECT_EQ(code, kNumericFailure);
  const auto summary = [](const std::string& text) { return text.substr(text.rfind("\n\n")); };
  EXPECT_EQ(summary(merged), summary(whole));
  for (size_t i = 2; i < merge.size(); i += 2) std::remove(merge[i].c_str());
}

// Mutants are cut by mutant, not by case: one case of them all must show a mutant.
TEST(CheckVerb, ShardsOfMutantsMergeIntoTheWhole) {
  const TempDir dir;
  const std::vector<std::string> args = {"--cases", kCasesDir, "--op", "silu", "--mutants"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), args.begin(), args.end());
    return RunCheck(more);
  };
  const auto [code, whole] = with({});
  std::vector<std::string> merge = {"--merge"};
  for (const char* shard : {"2/2", "1/2"}) {
    const auto [code, out] = with({"--shard", shard, "--format", "jsonl"});
    EXPECT_EQ(code, kPass);
    merge.push_back(WriteBytes(dir / std::string(1, shard[0]), out));
  }
  const auto [merged_code, merged] = RunCheck(merge);
  EXPECT_EQ(merged_code, code);
  EXPECT_EQ(merged.substr(merged.rfind("\n\n")), whole.substr(whole.rfind("\n\n")));
  EXPECT_EQ(RunCheck({"--merge", merge[1]}).first, kUsage);
}

TEST(CheckVerb, AWholeLayerOfAModelPasses) {
  EXPECT_EQ(RunCheck({"--model", "tiny", "--layer", "3"}).first, kPass);
}

}  // namespace
}  // namespace lab
