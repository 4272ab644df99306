// lab bisect on the real model: as real_test.cc, and the sweeps, which take minutes and are run by
// hand (--gtest_also_run_disabled_tests; figures in notes/numerics.md).
#include <gtest/gtest.h>

#include "lab/bisect_report.h"
#include "lab/json.h"
#include "model/repack.h"
#include "model/tokenizer.h"
#include "tests/bisect_util.h"

namespace lab {
namespace {

constexpr int kThreads = 2;
constexpr size_t kShards = 12;

class RealBisect : public testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    std::string why;
    const std::string path = DefaultModel(&why);
    if (path == "tiny" && std::getenv("LAB_REQUIRE_MODEL"))
      FAIL() << "the real model is missing; './dev model' fetches it";
    if (path == "tiny") GTEST_SKIP() << "no real model; './dev model' fetches it";
    model_ = OpenModel(path);
    Repack(model_, kThreads);
    ids_ = Tokenizer(*model_.source).Encode("What is 2+2?");
  }
  Qwen2 model_;
  std::vector<int32_t> ids_;
};

// The case that the project began with: one matrix of one layer read transposed.
TEST_F(RealBisect, NamesATransposedMatrix) {
  RowSet rows(Backend::hwy, Contract::q16);
  rows.Use(ParseUse({"down_proj@17=mutant:transposed"}, Contract::q16, model_.config.layers));
  Bisector bisector(model_, Contract::q16, KvType::f32, ids_, kThreads);
  const BisectResult result = bisector.Run(rows, {{{16, 18}}, ""});
  ASSERT_NE(result.FirstWrong(), nullptr);
  EXPECT_EQ(result.FirstWrong()->name, "L17.down_proj");
  for (const StepVerdict& s : result.steps) EXPECT_EQ(s.wrong(), s.name == "L17.down_proj");
}

// What rounding to 8 bits costs is not an error of the kernels.
TEST_F(RealBisect, FindsAQ8CandidateWithinItsContract) {
  Bisector bisector(model_, Contract::q8, KvType::f16, ids_, kThreads);
  const BisectResult result = bisector.Run(RowSet(Backend::hwy, Contract::q8), {{{2, 4}}, ""});
  EXPECT_TRUE(BisectToText(result, 3).starts_with("within contract q8 (KV f16), no wrong step"))
      << BisectToText(result, 3);
  EXPECT_EQ(result.steps.size(), 3 * 17u);
}

class RealBisectSweep : public RealBisect {};

TEST_P(RealBisectSweep, DISABLED_RightCandidatesRaiseNoAlarm) {
  if (GetParam() > 3) return;
  size_t runs = 0;
  const auto contract = static_cast<Contract>(GetParam() - 1);
  EXPECT_EQ(CountAlarms(model_, {ids_}, {contract}, {kThreads}, &runs), 0u);
  EXPECT_EQ(runs, 4u);
}

TEST_P(RealBisectSweep, DISABLED_NamesOpAndLayerOfEveryMutant) {
  const MutantSweep sweep =
      SweepMutants(model_, ids_, {5, 11, 24}, kThreads, false, {GetParam(), kShards});
  EXPECT_EQ(sweep.misnamed, std::vector<std::string>());
  EXPECT_EQ(sweep.false_alarms, std::vector<std::string>());
  fmt::print("{} runs, {} unchanged, found {}, missed {}\n", sweep.runs, sweep.unchanged,
             Json(sweep.found).dump(), Json(sweep.missed_runs).dump());
}
INSTANTIATE_TEST_SUITE_P(Shards, RealBisectSweep, testing::Range(size_t{1}, kShards + 1));

}  // namespace
}  // namespace lab
