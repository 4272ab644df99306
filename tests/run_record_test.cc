// What a file says of a run comes back, what it does not say stays unknown, damage is named.
#include "lab/run_record.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/half.h"
#include "lab/error.h"
#include "lab/safetensors.h"
#include "tests/golden.h"
#include "tests/test_util.h"

namespace lab {
namespace {

const std::vector<int32_t> kIds = {87, 104, 97, 300, 5};

const Qwen2& Tiny() {
  static const Qwen2 model = OpenModel("tiny");
  return model;
}

std::string ErrorOf(const std::string& path) {
  try {
    ReadRun(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), kUsage);
    return error.what();
  }
  return "";
}

TEST(RunRecord, TraceComesBack) {
  Trace trace = RecordRun<float>(Tiny(), Backend::ref, kIds, 1);
  trace.header.model = "tiny";
  trace.header.backend = "ref";
  trace.header.contract = "f32";
  trace.header.kv_type = "f32";
  trace.header.layers = 28;
  trace.header.steps = {{true, 0, kIds.size()}};
  const TempDir dir;
  std::string text;
  TraceToJsonl(trace, [&](std::string_view line) { text += line; });
  const RunRecord run = ReadRun(WriteBytes(dir / "t", text));
  EXPECT_EQ(run.header.format, "lab trace");
  EXPECT_EQ(run.header.ids, kIds);
  EXPECT_EQ(run.header.sha256, std::nullopt) << "an empty string is no hash";
  EXPECT_EQ(run.header.contract, "f32");
  EXPECT_EQ(run.header.std_kind, StdKind::population);
  EXPECT_EQ(run.header.arithmetic, StoredType::f32);
  ASSERT_EQ(run.header.steps->size(), 1u);
  EXPECT_EQ(run.tops.size(), kIds.size());
  EXPECT_EQ(run.report.unexplained, 0u);
  EXPECT_TRUE(run.report.remarks.empty());
  ASSERT_EQ(run.tokens.size(), trace.taps.size());
  for (const TapRecord& r : trace.taps) {
    const Figures& f = run.tokens.at({r.tap, r.layer, r.token}).figures;
    EXPECT_EQ(f.n, r.stats.n);
    EXPECT_EQ(f.argmax, r.stats.argmax);
    for (const auto& [figure, value] : {std::pair(f.std, r.stats.std),
                                        {f.mean, r.stats.mean},
                                        {f.absmax, r.stats.absmax},
                                        {f.l2, r.stats.l2}})
      EXPECT_LE(std::abs(figure->value - value), figure->rounding) << InfoOf(r.tap).name;
  }
  const PooledRecord& pooled = run.pooled.at({3, Tap::ffn_swiglu});
  EXPECT_EQ(pooled.tokens.Read(), (std::vector<size_t>{0, 1, 2, 3, 4}));
}

TEST(RunRecord, GoldenTraceLeavesUnknownWhatItDoesNotSay) {
  const RunRecord run = ReadRun(GoldenPath("tiny.jsonl"));
  EXPECT_EQ(run.header.contract, std::nullopt);
  EXPECT_EQ(run.header.arithmetic, std::nullopt);
  const Figures& f = run.tokens.at({Tap::ffn_swiglu, 3, 1}).figures;
  EXPECT_TRUE(f.mean && f.std && f.absmax && f.l2);
  EXPECT_FALSE(f.n || f.min || f.argmax || f.sum);
}

TEST(RunRecord, DumpComesBack) {
  const std::vector<float> values = {1, 2, 3, -5, 0.5f, 7};
  const TempDir dir;
  {
    OutputFile out(dir / "d");
    const SafetensorsEntry entry = {
        "L03.ffn_out", "F32", {2, 3}, {reinterpret_cast<const uint8_t*>(values.data()), 24}};
    SafetensorsEntry strange = entry;
    strange.name = "L03.ffn_owt";
    WriteSafetensors(out, std::vector{entry, strange},
                     {{"backend", "oracle"}, {"ids", "4,5"}, {"contract", "q8"}, {"kv", "f16"}});
    out.Commit();
  }
  const RunRecord run = ReadRun(dir / "d");
  EXPECT_EQ(run.header.format, "lab dump");
  EXPECT_EQ(run.header.ids, (std::vector<int32_t>{4, 5}));
  EXPECT_EQ(run.header.kv, "f16");
  EXPECT_EQ(run.header.arithmetic, StoredType::f64);
  EXPECT_TRUE(run.has_tensors());
  const TokenRecord& second = run.tokens.at({Tap::ffn_out, 3, 1});
  EXPECT_EQ(second.row->Read(), (std::vector<double>{-5, 0.5, 7}));
  EXPECT_EQ(second.figures.absmax->value, 7);
  EXPECT_EQ(run.report.unexplained, 1u);
  EXPECT_EQ(run.report.first_of_them, std::vector<std::string>{"tensor 'L03.ffn_owt', F32 [2, 3]"});
}

TEST(RunRecord, DamageIsNamed) {
  const TempDir dir;
  const std::string header = "{\"kind\":\"header\",\"ids\":[1,2]}\n";
  const auto error = [&](const std::string& text) { return ErrorOf(WriteBytes(dir / "t", text)); };
  const auto has = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  has(error("hello"), "no trace or dump that lab knows; it reads: lab trace, lab dump");
  has(error(header + "{\"kind\":\"tap\",\"tap\":\"ffn_"), "line 2: is not a JSON object");
  has(error(header + R"({"kind":"tap","tap":"ffn_owt","layer":1,"token":0})"),
      "line 2: unknown tap 'ffn_owt'");
  has(error(header + R"({"kind":"tap","tap":"ffn_out","layer":1})"), "line 2:");
  has(error(header + R"({"kind":"tap","tap":"ffn_out","layer":1,"token":0,"std":"much"})"),
      "'much' is no number");
  has(error(header + R"({"kind":"tap","tap":"ffn_out","layer":1,"token":0})" + "\n" +
            R"({"kind":"pooled","tap":"ffn_out","layer":1,"tokens":2})"),
      "pools 2 tokens, but 1 came");
  const std::string tap = R"({"kind":"tap","tap":"ffn_out","layer":1,"token":1})"
                          "\n";
  has(error(header + tap + tap), "line 3: L01.ffn_out of token 1 for the second time");
  has(error("{\"kind\":\"header\",\"ids\":[1]}\n" + tap), "line 2: token 1 of a run of 1");
  has(error(R"({"kind":"header","steps":[{"phase":"prefill","first":0,"tokens":2},)"
            R"({"phase":"decode","first":1,"tokens":1}]})"
            "\n"),
      "line 1: a step begins at token 1, before the step ahead of it ends at 2");
  EXPECT_EQ(error(header), "") << "cut off between lines";
  EXPECT_EQ(ReadRun(dir / "t").report.remarks.size(), 1u) << "but that is said";
}

TEST(RunRecord, StoredTypes) {
  const std::vector<uint16_t> half = {FloatToHalf(0.1f)}, bf16 = {0x3dcd};
  const auto bytes = [](const auto& v) {
    return std::span(reinterpret_cast<const uint8_t*>(v.data()), v.size() * sizeof v[0]);
  };
  const double as_half = StoredRow{StoredType::f16, bytes(half)}.At(0);
  const double as_bf16 = StoredRow{StoredType::bf16, bytes(bf16)}.At(0);
  EXPECT_EQ(as_half, 0.0999755859375);
  EXPECT_EQ(as_bf16, 0.10009765625);
  EXPECT_LE(std::abs(as_half - 0.1), HalfUlp(0.1, StoredType::f16));
  EXPECT_EQ(HalfUlp(1, StoredType::f32), std::ldexp(1, -24));
  EXPECT_EQ(HalfUlp(1.9, StoredType::f64), std::ldexp(1, -53));
  EXPECT_EQ(HalfUlp(0, StoredType::f16), std::ldexp(1, -25)) << "the step of subnormal halves";
}

}  // namespace
}  // namespace lab
