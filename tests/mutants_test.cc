// The list of mutants: that it reaches every op, and that the committed cases kill every one.
#include "lab/mutants.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lab/capture.h"
#include "lab/cli.h"
#include "lab/device.h"
#include "lab/error.h"
#include "lab/judge.h"
#include "lab/mutant_matrix.h"
#include "lab/use.h"
#include "model/forward.h"
#include "tests/paths.h"
#include "tests/test_util.h"

namespace lab {
namespace {

std::vector<const Mutant*> AllMutants() {
  std::vector<const Mutant*> mutants;
  for (const Mutant& m : Mutants()) mutants.push_back(&m);
  return mutants;
}

TEST(Mutants, EveryOpHasSeveral) {
  for (size_t op = 0; op < OpCount(); ++op) {
    const auto count = std::count_if(Mutants().begin(), Mutants().end(), [&](const Mutant& m) {
      return m.Wraps(static_cast<Op>(op)) && !m.correct;
    });
    EXPECT_GE(count, 5) << NameOf(static_cast<Op>(op));
  }
}

TEST(Mutants, AtLeastFortyMistakesAndFiveOrders) {
  const auto correct =
      std::count_if(Mutants().begin(), Mutants().end(), [](const Mutant& m) { return m.correct; });
  EXPECT_GE(static_cast<ptrdiff_t>(Mutants().size()) - correct, 40);
  EXPECT_GE(correct, 5);
}

// What RunMutants says of the rows that are chosen; how many comparisons there were.
size_t ExpectAllAsTheyShould(bool (*chosen)(const Row&), bool until_killed) {
  std::vector<const Row*> rows;
  for (const Row& row : Rows())
    if (row.backend != Backend::oracle && WhyNotHere(row).empty() && chosen(row))
      rows.push_back(&row);
  size_t compared = 0;
  for (const MutantLine& line :
       RunMutants(AllMutants(), rows, ReadCases(kCasesDir), 2, until_killed)) {
    EXPECT_TRUE(line.AsItShould()) << line.mutant->name << " on " << NameOf(line.op) << ", "
                                   << line.compared << " compared; " << line.wrong;
    for (const std::string& row : line.survivors) ADD_FAILURE() << "survives in " << row;
    compared += line.compared;
  }
  return compared;
}

TEST(Mutants, CommittedCasesKillEveryOneAndPassEveryOrder) {
  const auto fast = [](const Row& row) { return row.backend != Backend::cuda_host; };
  const bool until_killed = kSanitized;  // fewer comparisons by the same code
  EXPECT_GT(ExpectAllAsTheyShould(fast, until_killed), until_killed ? 1000u : 2000u);
}

// The same in one row of each op and contract, for the quick tests.
TEST(QuickMutants, AreKilledInSimdRows) {
  const auto simd = [](const Row& row) {
    return &row == FindRow(row.op, row.contract, Backend::hwy);
  };
  EXPECT_GT(ExpectAllAsTheyShould(simd, true), 500u);
}

// A CPU in the place of a GPU takes its time.
TEST(Mutants, AreKilledInEveryCudaKernelOnTheHost) {
  const Row* silu = FindRow(Op::silu, Contract::f32, Backend::cuda_host);
  if (!silu || !WhyNotHere(*silu).empty()) GTEST_SKIP() << "built without LAB_CUDA_HOST";
  const auto on_host = [](const Row& row) { return row.backend == Backend::cuda_host; };
  EXPECT_GT(ExpectAllAsTheyShould(on_host, true), 1000u);
}

// A mutant counts where it changes a bit: no row may be left with hardly any.
TEST(Mutants, EveryRowIsFailedByFiveOfThem) {
  const std::vector<Case> cases = ReadCases(kCasesDir);
  for (const Row& row : Rows()) {
    // The oracle is what the others are judged by.
    if (row.backend == Backend::oracle || !WhyNotHere(row).empty()) continue;
    int failed = 0;
    for (const Mutant& m : Mutants()) {
      if (m.correct || failed == 5) continue;
      for (const MutantLine& line : RunMutants({&m}, {&row}, cases, 2, true))
        failed += line.failed > 0;
    }
    EXPECT_EQ(failed, 5) << row.function << " " << NameOf(row.contract);
  }
}

// A row that ignores its weights cannot be told from itself under a mutant of the weights.
TEST(Mutants, NoDifferenceIsNoComparison) {
  Case c;
  c.op = Op::q4k_dequant;
  const std::vector<uint8_t> zeros(4 * 144);
  c.w = {BlockType::Q4_K, zeros.data(), 2, 512};
  const Row* row = FindRow(Op::q4k_dequant, Contract::f32, Backend::ref);
  const auto lines = RunMutants({&FindMutant("nibble_order", "")}, {row}, {c}, 1);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].compared, 0u);
  EXPECT_FALSE(lines[0].AsItShould());
}

std::string ErrorOf(const std::string& rule, size_t layers) {
  try {
    ParseUse({rule}, Contract::f32, layers);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), kUsage);
    return error.what();
  }
  return "";
}

TEST(Use, RulesAreParsed) {
  const UseRule rule = ParseUse({"gate_up@0-2,5,8-9=mutant:gate_up_swapped"}, Contract::q8, 28)[0];
  EXPECT_EQ(rule.op, Op::gate_up);
  for (const int layer : {0, 1, 2, 5, 8, 9}) EXPECT_TRUE(rule.Covers(Op::gate_up, layer));
  for (const int layer : {-1, 3, 4, 6, 7, 10}) EXPECT_FALSE(rule.Covers(Op::gate_up, layer));
  EXPECT_FALSE(rule.Covers(Op::silu, 0));
  EXPECT_EQ(ParseUse({"matvec=ref"}, Contract::q8, 28)[0].row,
            FindRow(Op::matvec, Contract::q8, Backend::ref));
  EXPECT_EQ(ParseUse({"silu=SiluRef"}, Contract::q8, 28)[0].row,
            FindRow(Op::silu, Contract::f32, Backend::ref));
}

TEST(Use, BadRulesAreQuoted) {
  for (const char* rule :
       {"silu", "silu=", "nosuch=mutant:gelu", "silu=mutant:nosuch", "silu@=mutant:gelu",
        "silu@28=mutant:gelu", "silu@3-1=mutant:gelu", "silu@x=mutant:gelu", "silu=SiluOracle",
        "rope=mutant:gelu", "silu=MatvecRef"})
    EXPECT_NE(ErrorOf(rule, 28).find(rule), std::string::npos) << rule;
  EXPECT_NE(ErrorOf("silu@1=mutant:gelu", 0), "");
}

std::vector<float> Logits(const Qwen2& model, const std::vector<std::string>& rules) {
  RowSet rows(Backend::hwy, Contract::f32);
  rows.Use(ParseUse(rules, Contract::f32, model.config.layers));
  Forward<float> forward(model, rows, KvType::f32, 2, 3);
  const std::vector<int32_t> ids = {104, 105, 33};
  forward.Run(ids, nullptr);
  return {forward.logits().begin(), forward.logits().end()};
}

TEST(Use, ChangesAPassInItsLayersAlone) {
  const Qwen2 model = OpenModel("tiny");
  const std::vector<float> plain = Logits(model, {});
  const std::vector<float> one = Logits(model, {"silu@3=mutant:gelu"});
  const std::vector<float> all = Logits(model, {"silu=mutant:gelu"});
  EXPECT_NE(plain, one);
  EXPECT_NE(one, all);
  EXPECT_EQ(plain, Logits(model, {"silu@3=SiluHwy"}));
}

TEST(Use, GuardedMutantsStayOutOfAPass) {
  RowSet rows(Backend::hwy, Contract::f32);
  EXPECT_THROW(rows.Use(ParseUse({"silu=mutant:writes_past_end"}, Contract::f32, 28)), Error);
}

}  // namespace
}  // namespace lab
