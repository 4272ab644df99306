// The CUDA kernels on the host: every row on every committed case, in several orders of warps.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "bench/reporter.h"
#include "bench/timed_row.h"
#include "lab/bisect.h"
#include "lab/capture.h"
#include "lab/check_forward.h"
#include "lab/device.h"
#include "lab/error.h"
#include "lab/judge.h"
#include "tests/paths.h"

namespace lab {
namespace {

bool Built(const Row& row) {
  return row.backend == Backend::cuda_host && WhyNotHere(row).empty();
}

// 3, or what LAB_SIMT_ORDERS says.
int Orders() {
  const char* text = std::getenv("LAB_SIMT_ORDERS");
  return text ? std::max(1, std::atoi(text)) : 3;
}

TEST(CudaHost, EveryRowPassesEveryCaseInEveryOrder) {
  size_t judged = 0;
  for (const Case& c : ReadCases(kCasesDir)) {
    Oracles oracles(c);
    for (const Row& row : Rows()) {
      if (row.op != c.op || !Built(row)) continue;
      for (const bool half_kv : {false, true}) {
        if (half_kv && row.op != Op::gqa_attention) continue;
        // Each run has another order and must give the same bits.
        const Verdict v = JudgeRow(c, {&row}, oracles.Of(row.contract, half_kv), half_kv, 1,
                                   Orders(), LanesOf(row));
        EXPECT_EQ(v.status, Status::pass) << row.function << " on " << c.name << ": " << v.why;
        ++judged;
      }
    }
  }
  if (judged == 0) GTEST_SKIP() << "built without LAB_CUDA_HOST";
  EXPECT_GT(judged, 400u);
}

// A line of kernels.def for every description that the SIMD backend has.
TEST(CudaHost, TheCudaBackendIsComplete) {
  for (const Row& row : Rows())
    if (row.backend == Backend::hwy) {
      EXPECT_NE(FindRow(row.op, row.contract, Backend::cuda), nullptr) << row.function;
      EXPECT_NE(FindRow(row.op, row.contract, Backend::cuda_host), nullptr) << row.function;
    }
}

// By the rules of `lab check --forward`: the prompt in one batch, then eight steps of one token,
// seven of them replays of a graph.
TEST(CudaHost, PrefillAndEightDecodesAreWithinTheComposedRules) {
  if (!RowSet::Complete(Backend::cuda_host, Contract::f32)) GTEST_SKIP() << "not built";
  const Qwen2 model = OpenModel("tiny");
  const std::vector<int32_t> prompt = {72, 105, 33};
  const std::vector<int32_t> ids = ContinueGreedily(model, prompt, 8, {});
  ComposedOptions options;
  options.contracts = {Contract::f32};
  const auto results = RunComposed(model, ids, options,
                                   CandidatesOf(model, Backend::cuda_host, 1, {}, prompt.size()));
  EXPECT_EQ(ComposedExitCode(results, prompt.size()), kPass)
      << ComposedToText(results, prompt.size(), true);
}

// A step alone, fed with the oracle's own input: what is left of a pass once errors do not add up.
// Of nine tokens, so that the tensor cores have their part.
TEST(CudaHost, EveryStepOfAPassIsRightOnTheOraclesInput) {
  const Contract contract = Contract::q8;
  if (!RowSet::Complete(Backend::cuda_host, contract)) GTEST_SKIP() << "not built";
  const Qwen2 model = OpenModel("tiny");
  Bisector bisector(model, contract, DefaultKv(contract), {72, 105, 33, 7, 200, 5, 6, 9, 14}, 1);
  const BisectResult result =
      bisector.Run(RowSet(Backend::cuda_host, contract), {{{0, 1}, {27, 27}}, ""});
  EXPECT_GT(result.steps.size(), 30u);
  for (const StepVerdict& step : result.steps)
    EXPECT_EQ(step.verdict.status, Status::pass) << step.name << ": " << step.verdict.why;
}

// Benchmarks of rows, which say where they went wrong.
class Skips : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      ++timed_;
      EXPECT_FALSE(MedianReporter::Skipped(run)) << run.run_name.str();
      EXPECT_GE(run.iterations, 2) << run.run_name.str();
    }
  }
  size_t timed() const { return timed_; }

 private:
  size_t timed_ = 0;
};

// Timed as on a GPU: what is not there already would have to be copied within a graph, which fails;
// and the outputs of the graph must have the bits of the judged ones.
TEST(CudaHost, RowsAreTimedInGraphsOnWhatIsThereAlready) {
  TimingOptions options;
  options.cold_bytes = 60'000;  // of most matrices two copies and more
  options.launches = 2;
  options.roofline.all = {1e9, 1e9, 1e9};
  options.read_rate = [] { return 1e9; };
  std::vector<Case> cases = CaptureCases(OpenModel("tiny"), 1, {87, 104, 97, 300, 5}, 0, 0, 1);
  for (Case& c : ReadCases(kCasesDir))
    if (c.op == Op::gqa_attention) cases.push_back(std::move(c));  // of one token, too
  std::vector<std::unique_ptr<TimedRow>> rows;
  for (const Case& c : cases) {
    for (const Row& row : Rows()) {
      if (row.op != c.op || !Built(row)) continue;
      for (const bool half_kv : {false, true}) {
        if (half_kv && row.op != Op::gqa_attention) continue;
        rows.push_back(
            std::make_unique<TimedRow>(c, RowUse{&row, nullptr}, half_kv, LanesOf(row), options));
        benchmark::RegisterBenchmark(
            fmt::format("{} {}", c.name, row.function).c_str(),
            [timed = rows.back().get()](benchmark::State& state) { timed->Time(state); })
            ->Iterations(1);
      }
    }
  }
  if (rows.empty()) GTEST_SKIP() << "built without LAB_CUDA_HOST";
  Skips reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter, ".");
  benchmark::ClearRegisteredBenchmarks();
  EXPECT_EQ(reporter.timed(), rows.size());
}

TEST(Device, KernelsRunOnTheSameMajorOrAbove) {
  constexpr int kBuilt[] = {75, 86, 90};
  const auto why_not = [&](int sm) {
    return WhyNotOn({"Some GPU", sm / 10, sm % 10, 1, 0, 0, 0}, kBuilt);
  };
  for (const int sm : {75, 86, 89, 90, 100, 120}) EXPECT_EQ(why_not(sm), "") << sm;
  for (const int sm : {70, 72, 80})
    EXPECT_EQ(why_not(sm),
              fmt::format("device 0 (Some GPU) is sm_{0}, and the kernels are built for sm_75 "
                          "sm_86 sm_90 + PTX; configure with -DLAB_CUDA_ARCHITECTURES={0}",
                          sm));
}

}  // namespace
}  // namespace lab
