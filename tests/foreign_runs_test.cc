// Logs of other programs come in whole: llama.cpp's tensor log, apr's trace and CSV.
#include <gtest/gtest.h>

#include "lab/run_compare.h"
#include "lab/run_readers.h"
#include "lab/run_record.h"
#include "tests/golden.h"
#include "tests/test_util.h"

namespace lab {
namespace {

const std::string& LlamaText() {
  static const std::string text = UnzippedGolden("llama-debug.what-is-2+2.txt.gz");
  return text;
}

RunRecord ReadText(const std::string& text) {
  const TempDir dir;
  return ReadRun(WriteBytes(dir / "log", text));
}

double ValueAt(const RunRecord& run, const Place& place, size_t channel) {
  return run.tokens.at(place).values.at(channel).value;
}

TEST(Figures, RoundingIsHalfAUnitOfTheLastDigit) {
  const std::pair<const char*, double> texts[] = {
      {"12", 0.5}, {" -0.4160", 5e-5}, {"1.25e-05", 5e-8}, {"1.25e+06", 5e3}, {"1.25E6", 5e3},
      {"3e2", 50}, {"-0.0", 0.05},     {"inf", 0},         {"nan", 0}};
  for (const auto& [text, rounding] : texts) {
    const auto figure = ParseFigure(text);
    ASSERT_TRUE(figure) << text;
    EXPECT_NEAR(figure->rounding, rounding, 1e-12 * rounding) << text;
  }
  for (const char* text : {"", "-", "e5", "1e", "1e+", "1.2.3", "0.5x"})
    EXPECT_FALSE(ParseFigure(text)) << text;
}

TEST(LlamaLog, EveryTensorLineIsExplained) {
  const RunRecord run = ReadText(LlamaText());
  EXPECT_EQ(run.header.format, "llama.cpp log");
  EXPECT_EQ(run.report.unexplained, 0u) << run.report.first_of_them.at(0);
  EXPECT_EQ(run.header.ids, (std::vector<int32_t>{3838, 374, 220, 17, 10, 17, 30}));
  EXPECT_EQ(run.header.layers, 28u);
  EXPECT_EQ(run.header.head_dim, 128u);
  EXPECT_EQ(run.header.architecture, "qwen2");
  EXPECT_EQ(run.header.model, "qwen15.gguf");
  EXPECT_EQ(run.header.kv, "f16");
  EXPECT_EQ(run.header.contract, std::nullopt) << "the log does not say it";
  // 958 tensors; 18 taps in each layer, and three outside.
  EXPECT_NE(run.report.remarks.back().find("958 tensors, 507 of them taps"), std::string::npos)
      << run.report.remarks.back();
}

TEST(LlamaLog, ValuesStandWhereTheyWerePrinted) {
  const RunRecord run = ReadText(LlamaText());
  // The three values called Qcur-3, and heads side by side.
  EXPECT_EQ(ValueAt(run, {Tap::q_proj, 3, 0}, 0), 0.0269);
  EXPECT_EQ(ValueAt(run, {Tap::q_bias, 3, 0}, 0), 0.4859);
  EXPECT_EQ(ValueAt(run, {Tap::q_rope, 3, 1}, 0), 1.7339);
  EXPECT_EQ(ValueAt(run, {Tap::q_rope, 3, 1}, 127), -0.4190);
  EXPECT_EQ(ValueAt(run, {Tap::q_rope, 3, 1}, 128), 1.5455);
  EXPECT_EQ(ValueAt(run, {Tap::q_rope, 3, 1}, 1535), -2.5709);
  EXPECT_EQ(ValueAt(run, {Tap::q_proj, 3, 6}, 1535), -2.0270);
  EXPECT_EQ(ValueAt(run, {Tap::q_proj, 3, 4}, 0), -0.3411) << "token 3 is left out";
  EXPECT_FALSE(run.tokens.contains({Tap::q_proj, 3, 3}));
  // The last layer holds the last token only, from its residual on.
  EXPECT_FALSE(run.tokens.contains({Tap::ffn_out, 27, 0}));
  EXPECT_TRUE(run.tokens.contains({Tap::attn_out, 27, 0}));
  EXPECT_EQ(ValueAt(run, {Tap::final_norm, kNoLayer, 6}, 1535), 1.3193);
  EXPECT_EQ(ValueAt(run, {Tap::lm_head, kNoLayer, 6}, 151935), -3.5058);
  // A sum over all tokens is pooled; over one it is that token's.
  const PooledRecord& pooled = run.pooled.at({3, Tap::q_proj});
  EXPECT_EQ(pooled.tokens.size(), 7u);
  EXPECT_EQ(pooled.figures.sum->value, -473.341553);
  EXPECT_EQ(run.tokens.at({Tap::final_norm, kNoLayer, 6}).figures.sum->value, 310.683655);
}

TEST(LlamaLog, WhatItCannotReadIsCounted) {
  std::string text = LlamaText();
  const auto replace = [&](const std::string& what, const std::string& by) {
    const size_t at = text.find(what);
    ASSERT_NE(at, std::string::npos) << what;
    text.replace(at, what.size(), by);
  };
  replace("ffn_out-3 = (f32)    MUL_MAT", "ffn_owt-3 = (f32)    MUL_MAT");
  replace("[      0.0269,", "[      0.02x9,");
  replace("Token ids (7):", "Token ids (8):");
  const RunRecord run = ReadText(text);
  EXPECT_EQ(run.report.unexplained, 2u);
  EXPECT_FALSE(run.header.ids);
  EXPECT_FALSE(run.tokens.contains({Tap::ffn_out, 3, 0}));
  EXPECT_NE(run.report.first_of_them.at(1).find("ffn_owt-3"), std::string::npos);
  // Cut off in the middle of a tensor.
  const RunRecord cut = ReadText(text.substr(0, text.find("ffn_up-3 = (f32)") + 300));
  EXPECT_NE(cut.report.first_of_them.back().find("has no sum"), std::string::npos);
}

TEST(AprTrace, TextAndCsvSayTheSame) {
  const RunRecord text = ReadRun(GoldenPath("apr-trace.7b.head.txt"));
  EXPECT_EQ(text.header.format, "apr trace");
  EXPECT_EQ(text.report.unexplained, 0u) << text.report.first_of_them.at(0);
  EXPECT_EQ(text.header.ids, (std::vector<int32_t>{3838, 374, 220, 17, 10, 17, 30}));
  EXPECT_EQ(text.header.layers, 28u);
  EXPECT_EQ(text.header.head_dim, 128u);
  EXPECT_EQ(text.header.std_kind, StdKind::sample);
  const PooledRecord& swiglu = text.pooled.at({3, Tap::ffn_swiglu});
  EXPECT_TRUE(swiglu.tokens.empty()) << "nobody says which tokens are pooled";
  EXPECT_EQ(swiglu.figures.std->value, 1.2216);
  EXPECT_NEAR(swiglu.figures.std->rounding, 0.00005, 1e-18);
  EXPECT_EQ(swiglu.figures.mean->value, -0.0026);
  EXPECT_EQ(text.pooled.at({kNoLayer, Tap::embedding}).figures.max->value, 0.5273);
  EXPECT_EQ(text.pooled.at({kNoLayer, Tap::final_norm}).figures.std->value, 2.608262);
  EXPECT_EQ(text.pooled.at({kNoLayer, Tap::lm_head}).figures.l2->value, 1146.0424);
  ASSERT_EQ(text.tops.size(), 1u);
  EXPECT_EQ(text.tops[0].ids.at(2), 2014);

  const RunRecord csv = ReadRun(GoldenPath("apr-trace.7b.sub-ffn-stds.csv"));
  EXPECT_EQ(csv.header.format, "apr CSV");
  EXPECT_EQ(csv.report.unexplained, 0u);
  EXPECT_EQ(csv.pooled.size(), 28u * 6);
  size_t compared = 0;
  for (const auto& [key, record] : csv.pooled)
    if (const auto it = text.pooled.find(key); it != text.pooled.end()) {
      EXPECT_EQ(it->second.figures.std->value, record.figures.std->value);
      ++compared;
    }
  EXPECT_EQ(compared, 5u * 6);
}

// The case: the pool of all tokens beside the pool of one, and no file that says so.
TEST(AprTrace, PoolsOfUnknownTokensAreNotComparable) {
  const RunRecord text = ReadRun(GoldenPath("apr-trace.7b.head.txt"));
  const RunRecord csv = ReadRun(GoldenPath("apr-trace.7b.sub-ffn-stds.csv"));
  const RunComparison c = CompareRuns(text, csv, {}, nullptr);
  EXPECT_EQ(c.verdict(), RunVerdict::not_comparable);
  EXPECT_NE(c.headers.reasons.at(0).find("--pooled takes them for the same"), std::string::npos)
      << c.headers.reasons.at(0);
  EXPECT_EQ(CompareRuns(text, csv, {"", true, false, false}, nullptr).verdict(),
            RunVerdict::identical);
}

TEST(AprTrace, UnknownLinesAreCounted) {
  const RunRecord run = ReadText(
      "=== Traced Inference (APR-TRACE-001) ===\n  Layer  0/28 [OK]\n"
      "    attn_norm: mean= -0.0001 std=  0.2213\n    attn_nrom: mean= -0.0001 std=  0.2213\n"
      "    qkv      : mean=  x std= 1\nand so on\n");
  EXPECT_EQ(run.report.unexplained, 3u);
  EXPECT_EQ(run.pooled.size(), 1u);
  const RunRecord csv = ReadText("layer,ffn_up,ffn_owt\n0,0.5,1\n1,0.5\n");
  EXPECT_EQ(csv.report.unexplained, 2u);
  EXPECT_EQ(csv.pooled.size(), 1u);
}

}  // namespace
}  // namespace lab
