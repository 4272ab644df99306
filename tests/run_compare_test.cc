// lab diff: what may be compared, and what the comparison says.
#include "lab/run_compare.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lab/diff_report.h"
#include "lab/error.h"
#include "tests/run_util.h"

namespace lab {
namespace {

// Two layers of a run over three tokens, 64 channels, made up.
RunRecord Made(double scale = 1) {
  RunRecord run;
  run.header.sha256 = "aaaaaaaaaaaa";
  run.header.layers = 2;
  run.header.ids = {5, 6, 7};
  run.header.steps = {{true, 0, 3}};
  run.header.std_kind = StdKind::population;
  run.header.contract = "f32", run.header.kv = "f32";
  for (int layer = 0; layer < 2; ++layer)
    for (const Tap tap : {Tap::ffn_gate, Tap::ffn_swiglu, Tap::layer_out})
      for (size_t t = 0; t < 3; ++t) {
        std::vector<double> row(64);
        for (size_t i = 0; i < row.size(); ++i)
          row[i] =
              scale * std::sin(static_cast<double>(i * (t + 3) + 7 * static_cast<size_t>(layer)));
        PutRow(run, {tap, layer, t}, row);
      }
  return run;
}

// Pooled figures of its tokens instead of the tokens.
RunRecord PooledOnly(const RunRecord& run) {
  RunRecord pooled = StatisticsOf(run);
  std::map<std::pair<int, Tap>, std::vector<const Figures*>> rows;
  for (const auto& [place, record] : pooled.tokens) {
    rows[{place.layer, place.tap}].push_back(&record.figures);
    pooled.pooled[{place.layer, place.tap}].tokens.Add(place.token);
  }
  for (auto& [key, record] : pooled.pooled) record.figures = PoolFigures(rows.at(key));
  pooled.tokens.clear();
  return pooled;
}

RunRecord LastOnly(RunRecord run) {
  std::erase_if(run.tokens, [](const auto& t) { return t.first.token != 2; });
  return run;
}

RunComparison Compare(const RunRecord& a, const RunRecord& b, const Transforms& how = {}) {
  return CompareRuns(a, b, how, nullptr);
}

// It does not say under which contract it was made.
RunRecord Silent(RunRecord run) {
  run.header.contract.reset();
  run.header.kv.reset();
  return run;
}

void ExpectRefused(const RunComparison& c, const std::string& reason) {
  EXPECT_EQ(c.verdict(), RunVerdict::not_comparable);
  ASSERT_FALSE(c.headers.reasons.empty());
  EXPECT_NE(c.headers.reasons[0].find(reason), std::string::npos) << c.headers.reasons[0];
  const DiffResult result = {nullptr, nullptr, c, {}, {}, {}, false};
  EXPECT_EQ(DiffExitCode(result), kNotComparable);
  EXPECT_EQ(VerdictText(result), "NOT COMPARABLE");
}

TEST(RunCompare, EqualRunsAreIdentical) {
  const RunComparison c = Compare(Made(), Made());
  EXPECT_EQ(c.verdict(), RunVerdict::identical);
  EXPECT_EQ(c.places.size(), 18u);
  EXPECT_EQ(c.weakest(), Evidence::tensors);
  EXPECT_EQ(Compare(StatisticsOf(Made()), Made()).verdict(), RunVerdict::identical);
}

TEST(RunCompare, RoundOffIsWithinAndMoreIsNot) {
  EXPECT_EQ(Compare(Made(), Made(1 + 1e-6)).verdict(), RunVerdict::within);
  for (const bool statistics : {false, true}) {
    const RunRecord b = statistics ? StatisticsOf(Made(1.001)) : Made(1.001);
    const RunComparison c = Compare(Made(), b);
    ASSERT_EQ(c.verdict(), RunVerdict::different);
    EXPECT_EQ(c.first_different()->place, (Place{Tap::ffn_gate, 0, 0}));
  }
}

TEST(RunCompare, TheFirstWrongPlaceIsNamed) {
  RunRecord b = Made();
  std::vector<double> row = b.tokens.at({Tap::ffn_swiglu, 1, 2}).row->Read();
  row[9] += 0.5;
  PutRow(b, {Tap::ffn_swiglu, 1, 2}, row);
  const RunComparison c = Compare(Made(), b);
  ASSERT_TRUE(c.first_different());
  EXPECT_EQ(c.first_different()->place, (Place{Tap::ffn_swiglu, 1, 2}));
  EXPECT_EQ(c.first_different()->distance.channel, 9u);
  const DiffResult result = {nullptr, nullptr, c, {}, {}, {}, false};
  EXPECT_TRUE(VerdictText(result).starts_with("different from L01.ffn_swiglu on"));
  EXPECT_EQ(DiffExitCode(result), kNumericFailure);
}

TEST(RunCompare, TheLargerContractDecides) {
  RunRecord a = Made(), b = Made(1.01);
  EXPECT_EQ(Compare(a, b).verdict(), RunVerdict::different);
  b.header.contract = "q8", b.header.kv = "f16";
  const RunComparison c = Compare(a, b);
  EXPECT_EQ(c.verdict(), RunVerdict::within);
  EXPECT_TRUE(c.estimated);
  EXPECT_FALSE(c.contract_is_a_guess);
  EXPECT_EQ(NameOf(c.contract), "q8 (KV f16)");
}

TEST(RunCompare, AnUnknownContractIsTheNarrowestThatFits) {
  const RunComparison c = Compare(Made(), Silent(Made(1.01)));
  EXPECT_EQ(c.verdict(), RunVerdict::within);
  EXPECT_TRUE(c.contract_is_a_guess);
  EXPECT_EQ(NameOf(c.contract), "q8 (KV f16)");
  EXPECT_EQ(NameOf(Compare(Made(), Silent(Made(1 + 1e-6))).contract), "f32");
  EXPECT_EQ(Compare(Made(), Silent(Made(2))).verdict(), RunVerdict::different);
}

TEST(RunCompare, HeadersRefuse) {
  RunRecord b = Made();
  b.header.sha256 = "bbbbbbbbbbbb";
  ExpectRefused(Compare(Made(), b), "different model files");
  b = Made();
  b.header.layers = 3;
  ExpectRefused(Compare(Made(), b), "2 and 3 layers");
  b = Made();
  b.header.ids = {5, 6, 8};
  ExpectRefused(Compare(Made(), b), "position 2 is 7 and 8");
  b = Made();
  b.header.steps = {{false, 0, 1}, {false, 1, 1}, {false, 2, 1}};
  ExpectRefused(Compare(Made(), b), "--across-phases");
  EXPECT_EQ(Compare(Made(), b, {"", false, true, false}).verdict(), RunVerdict::identical);
  b = StatisticsOf(Made());
  b.header.std_kind = StdKind::sample;
  ExpectRefused(Compare(Made(), b), "--convert-std");
  RunRecord empty = Made();
  empty.tokens.clear();
  ExpectRefused(Compare(Made(), empty), "no tap is in both files");
  ExpectRefused(Compare(empty, empty), "no tap is in both files");
}

TEST(RunCompare, SampleStdIsConvertedWhenTheUserSaysSo) {
  RunRecord b = StatisticsOf(Made());
  b.header.std_kind = StdKind::sample;
  for (auto& [place, record] : b.tokens)
    ConvertStd(record.figures, StdKind::population, StdKind::sample);
  const RunVerdict verdict = Compare(StatisticsOf(Made()), b, {"", false, false, true}).verdict();
  EXPECT_TRUE(verdict == RunVerdict::within || verdict == RunVerdict::identical);
}

// A file that has mean and std alone: what is derived from them must not mix the two kinds of std,
// which at 64 channels are 0.8 % apart.
TEST(RunCompare, WhatFollowsFromASampleStdIsConvertedToo) {
  RunRecord b = Made();
  b.header.std_kind = StdKind::sample;
  for (auto& [place, record] : b.tokens) {
    Figures f;
    f.n = record.figures.n, f.mean = record.figures.mean, f.std = record.figures.std;
    ConvertStd(f, StdKind::population, StdKind::sample);
    record = {f, {}, {}, {}};
  }
  EXPECT_EQ(Compare(Made(), b, {"", false, false, true}).first_different(), nullptr);
  b.header.std_kind.reset();
  EXPECT_EQ(Compare(Made(), b).first_different(), nullptr) << "of unknown kind: may be either";
  for (auto& [place, record] : b.tokens) record.figures.std->value *= 1.01;
  EXPECT_NE(Compare(Made(), b).first_different(), nullptr);
  // Pools of them.
  RunRecord pooled = PooledOnly(Made());
  b.header.std_kind = StdKind::sample;
  for (auto& [place, record] : b.tokens) record.figures.std->value /= 1.01;
  EXPECT_EQ(Compare(pooled, b, {"", true, false, true}).first_different(), nullptr);
}

TEST(RunCompare, PoolsOfUnknownTokensNeedTheUsersWord) {
  RunRecord unknown = PooledOnly(Made());
  for (auto& [key, record] : unknown.pooled) record.tokens = {};
  for (const RunRecord& other : {PooledOnly(Made()), unknown, StatisticsOf(Made())})
    ExpectRefused(Compare(other, unknown), "--pooled takes them for the same");
  EXPECT_EQ(Compare(unknown, unknown, {"", true, false, false}).verdict(), RunVerdict::identical);
}

TEST(RunCompare, CandidatesAreAsLargeAsWhatIsKnown) {
  const auto names = [](std::optional<RunContract> a, std::optional<RunContract> b) {
    std::string text;
    for (const RunContract& c : CandidateContracts(a, b)) text += NameOf(c) + " ";
    return text;
  };
  const RunContract f32 = {Contract::f32, KvType::f32}, half = {Contract::f32, KvType::f16};
  EXPECT_EQ(names({}, {}), "f32 q16 (KV f32) q8 (KV f16) ");
  EXPECT_EQ(names(half, {}), "f32 (KV f16) q16 (KV f16) q8 (KV f16) ");
  EXPECT_EQ(names({}, RunContract{Contract::q8, KvType::f32}), "q8 (KV f32) q8 (KV f16) ");
  EXPECT_EQ(names(f32, RunContract{Contract::q16, KvType::f32}), "q16 (KV f32) ");
}

// The first kernel of all may be the wrong one.
TEST(RunCompare, AWrongEmbeddingOfTheSameTokensIsAResult) {
  RunRecord a = Made(), b = Made();
  PutRow(a, {Tap::embedding, kNoLayer, 1}, {1, 2, 3});
  PutRow(b, {Tap::embedding, kNoLayer, 1}, {1, 2, 4});
  const RunComparison c = Compare(a, b);
  ASSERT_TRUE(c.first_different());
  EXPECT_EQ(c.first_different()->place.tap, Tap::embedding);
  b.header.ids.reset();
  ExpectRefused(Compare(a, b), "embedding rows of token 1 differ");
}

TEST(RunCompare, RunsThatAgreeOnAWrongValueAreNotRight) {
  RunRecord wrong = Made(1.01);
  const RunComparison oracle = Compare(wrong, Made());
  const DiffResult result = {nullptr, nullptr, Compare(wrong, wrong), oracle, oracle, {}, false};
  EXPECT_EQ(DiffExitCode(result), kNumericFailure);
  EXPECT_TRUE(VerdictText(result).starts_with("A and B show no difference, but both differ"));
}

TEST(RunCompare, UnknownIsNotDifferent) {
  RunRecord b = Made();
  b.header = {};
  const RunComparison c = Compare(Made(), b);
  EXPECT_EQ(c.verdict(), RunVerdict::identical);
  for (const HeaderField& f : c.headers.fields)
    EXPECT_EQ(f.agreement, Agreement::unknown) << f.name;
}

TEST(RunCompare, EqualEmbeddingsProveEqualTokens) {
  RunRecord a = Made(), b = Made();
  PutRow(a, {Tap::embedding, kNoLayer, 1}, {1, 2, 3});
  PutRow(b, {Tap::embedding, kNoLayer, 1}, {1, 2, 3});
  b.header.ids.reset();
  RunComparison c = Compare(a, b);
  const auto tokens = std::find_if(c.headers.fields.begin(), c.headers.fields.end(),
                                   [](const HeaderField& f) { return f.name == "tokens"; });
  EXPECT_EQ(tokens->agreement, Agreement::same);
  b.header.sha256 = "bbbbbbbbbbbb";
  EXPECT_EQ(Compare(a, b).verdict(), RunVerdict::identical) << "the same weights in another file";
  PutRow(b, {Tap::embedding, kNoLayer, 1}, {1, 2, 4});
  b.header.sha256 = a.header.sha256;
  ExpectRefused(Compare(a, b), "embedding rows of token 1 differ");
}

TEST(RunCompare, ALongerRunSharesItsBeginning) {
  RunRecord b = Made();
  b.header.ids = {5, 6, 7, 9};
  b.header.steps = {{true, 0, 3}, {false, 3, 1}};
  PutRow(b, {Tap::ffn_gate, 0, 3}, std::vector<double>(64, 1.0));
  const RunComparison c = Compare(Made(), b);
  EXPECT_EQ(c.verdict(), RunVerdict::identical);
  EXPECT_EQ(c.places.size(), 18u);
  ASSERT_EQ(c.rest.size(), 1u);
  EXPECT_EQ(c.rest[0].why, "token 3 only in B");
}

TEST(RunCompare, PooledFiguresAreNotThoseOfAToken) {
  const RunRecord pooled = PooledOnly(Made()), last = LastOnly(StatisticsOf(Made()));
  ExpectRefused(Compare(pooled, last), "A holds tokens 0-2 pooled, B holds token 2");
  ExpectRefused(Compare(pooled, last, {"last", false, false, false}), "pooled");
  ExpectRefused(Compare(pooled, Made()), "--pooled pools them");
  EXPECT_EQ(Compare(pooled, Made(), {"", true, false, false}).verdict(), RunVerdict::identical);
  EXPECT_EQ(Compare(pooled, PooledOnly(Made(1 + 1e-6))).verdict(), RunVerdict::within);
  EXPECT_EQ(Compare(pooled, PooledOnly(Made(2))).verdict(), RunVerdict::different);
}

TEST(RunCompare, CommonTokensAreComparedTheRestListed) {
  const RunComparison c = Compare(Made(), LastOnly(Made()));
  EXPECT_EQ(c.verdict(), RunVerdict::identical);
  EXPECT_EQ(c.places.size(), 6u);
  ASSERT_EQ(c.rest.size(), 6u);
  EXPECT_EQ(c.rest[0].why, "tokens 0-1 only in A");
  EXPECT_EQ(Compare(Made(), Made(), {"1", false, false, false}).places.size(), 6u);
  EXPECT_THROW(Compare(Made(), Made(), {"first", false, false, false}), Error);
}

TEST(RunCompare, NaNOnOneSideIsADifference) {
  RunRecord b = Made();
  std::vector<double> row = b.tokens.at({Tap::ffn_gate, 1, 0}).row->Read();
  row[3] = std::nan("");
  PutRow(b, {Tap::ffn_gate, 1, 0}, row);
  for (const RunRecord& run : {b, StatisticsOf(b)}) {
    const RunComparison c = Compare(Made(), run);
    ASSERT_TRUE(c.first_different());
    EXPECT_EQ(c.first_different()->place, (Place{Tap::ffn_gate, 1, 0}));
  }
}

TEST(RunCompare, ASingleValueIsJudgedByItself) {
  RunRecord b = StatisticsOf(Made());
  b.header.contract = "q8";
  for (auto& [place, record] : b.tokens) {
    const auto row = Made().tokens.at(place).row->Read();
    record.figures = {};
    for (const size_t channel : {0, 1, 2, 61, 62, 63})
      record.values[channel] = {row[channel], 5e-5};
  }
  EXPECT_NE(Compare(Made(), b).verdict(), RunVerdict::different);
  b.tokens.at({Tap::layer_out, 0, 1}).values.at(62).value += 0.4;
  const RunComparison c = Compare(Made(), b);
  ASSERT_TRUE(c.first_different());
  EXPECT_EQ(c.first_different()->place, (Place{Tap::layer_out, 0, 1}));
  EXPECT_EQ(c.first_different()->distance.channel, 62u);
}

TEST(RunCompare, TheRuleOfThumbIsQuoted) {
  EXPECT_EQ(SeedOf(Compare(Made(), Made(20))).says(), "bug");
  EXPECT_EQ(SeedOf(Compare(Made(), Made(1.1))).says(), "normal");
  EXPECT_EQ(SeedOf(Compare(Made(), Made(5))).says(), "unclear");
  EXPECT_NEAR(SeedOf(Compare(Made(), Made(5))).ratio, 5, 1e-9);
}

TEST(RunCompare, OraclesGiveTheTolerance) {
  const std::vector<RunContract> contracts = {{Contract::q8, KvType::f16}};
  const ReferenceRuns reference(TinyModel(), kRunIds, contracts, 1);
  const RunRecord& q8 = TinyRun(Backend::ref, contracts[0]);
  const RunComparison c = CompareRuns(q8, TinyRun(Backend::hwy, contracts[0]), {}, &reference);
  EXPECT_FALSE(c.estimated);
  EXPECT_NE(c.verdict(), RunVerdict::different);
  EXPECT_EQ(CompareRuns(TinyRun(Backend::ref), TinyRun(), {}, &reference).verdict(),
            RunVerdict::within);
  RunRecord wrong = q8;
  std::vector<double> row = wrong.tokens.at({Tap::attn_out, 4, 2}).row->Read();
  for (double& x : row) x = -x;
  PutRow(wrong, {Tap::attn_out, 4, 2}, row);
  const RunComparison bad = CompareRuns(q8, wrong, {}, &reference);
  ASSERT_TRUE(bad.first_different());
  EXPECT_EQ(bad.first_different()->place, (Place{Tap::attn_out, 4, 2}));
}

}  // namespace
}  // namespace lab
