// The real 1.5B model against the golden data. Skipped without the model file; with
// LAB_REQUIRE_MODEL=1 its absence is a failure.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <cstdlib>
#include <memory>
#include <sstream>

#include "lab/composed.h"
#include "lab/diff_report.h"
#include "lab/explain.h"
#include "lab/laws.h"
#include "lab/run_compare.h"
#include "lab/safetensors.h"
#include "lab/sha256.h"
#include "model/repack.h"
#include "model/tokenizer.h"
#include "reference/dequant_ref.h"
#include "tests/golden.h"
#include "tests/test_util.h"

namespace lab {
namespace {

constexpr int kThreads = 2;

class Real : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string why;
    const std::string path = DefaultModel(&why);
    if (path == "tiny") return;
    model_ = std::make_unique<Qwen2>(OpenModel(path));
    Repack(*model_, kThreads);
    tokenizer_ = std::make_unique<Tokenizer>(*model_->source);
  }
  static void TearDownTestSuite() {
    tokenizer_.reset();
    model_.reset();
  }
  void SetUp() override {
    if (model_) return;
    if (std::getenv("LAB_REQUIRE_MODEL"))
      FAIL() << "the real model is missing; './dev model' fetches it";
    GTEST_SKIP() << "no real model; './dev model' fetches it";
  }

  static std::unique_ptr<Qwen2> model_;
  static std::unique_ptr<Tokenizer> tokenizer_;
};
std::unique_ptr<Qwen2> Real::model_;
std::unique_ptr<Tokenizer> Real::tokenizer_;

TEST_F(Real, EveryTensorHasTheBitsOfTheGgufPackage) {
  std::ifstream in(GoldenPath("qwen15_dequant.sha256"));
  size_t compared = 0;
  for (std::string line; std::getline(in, line); ++compared) {
    const std::string expected = line.substr(0, 64), name = line.substr(66);
    const WeightTensor* t = model_->source->FindTensor(name);
    ASSERT_NE(t, nullptr) << name;
    std::vector<float> values(t->elements());
    DequantRow(t->block->type, t->data, values.size(), values.data());
    EXPECT_EQ(
        Sha256({reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)}),
        expected)
        << name;
  }
  EXPECT_EQ(compared, model_->source->tensors().size());
}

TEST_F(Real, TokenizerAgreesOnEveryGoldenText) {
  size_t compared = 0;
  for (const nlohmann::json& g : ReadJsonLines(GoldenPath("tokenizer.jsonl"))) {
    const std::string text = g["text"];
    EXPECT_EQ(tokenizer_->Encode(text), g["tokens"].get<std::vector<int32_t>>()) << text;
    EXPECT_EQ(tokenizer_->Decode(tokenizer_->Encode(text)), Nfc(text));
    ++compared;
  }
  EXPECT_EQ(compared, 300u);
}

// Each element within 1e-6 of its token's rms plus one ulp of the float32 golden value.
void ExpectTensor(const SafetensorsEntry& golden, const BitRecorder<double>& bits, Tap tap,
                  int layer) {
  const size_t tokens = golden.shape[0], n = golden.shape[1];
  for (size_t t = 0; t < tokens; ++t) {
    const std::vector<double>& ours = bits.values.at({tap, layer, t});
    ASSERT_EQ(ours.size(), n) << golden.name;
    const double rms = ComputeStats(ours.data(), n).rms;
    for (size_t i = 0; i < n; ++i) {
      const auto expected = static_cast<float>(golden.At(t * n + i));
      const double ulp = std::nextafter(std::abs(expected), INFINITY) - std::abs(expected);
      ASSERT_LE(std::abs(ours[i] - expected), 1e-6 * rms + ulp)
          << golden.name << " token " << t << " channel " << i;
    }
  }
}

TEST_F(Real, OracleMatchesTheGoldenTensors) {
  const std::vector<int32_t> ids = tokenizer_->Encode("What is 2+2?");
  EXPECT_EQ(ids, (std::vector<int32_t>{3838, 374, 220, 17, 10, 17, 30}));
  BitRecorder<double> bits;
  Forward<double> forward(*model_, RowSet(Backend::oracle, Contract::f32), KvType::f32, kThreads,
                          ids.size());
  forward.Run(ids, &bits);

  const Safetensors golden(GoldenPath("what-is-2+2.safetensors"));
  size_t compared = 0;
  for (size_t t = 0; t < Taps().size(); ++t) {
    const auto tap = static_cast<Tap>(t);
    const std::string name(InfoOf(tap).name);
    const bool per_layer = InfoOf(tap).per_layer;
    const SafetensorsEntry* entry = golden.Find(per_layer ? name + ".L3" : name);
    if (!entry) continue;
    ExpectTensor(*entry, bits, tap, per_layer ? 3 : kNoLayer);
    ++compared;
  }
  EXPECT_EQ(compared, golden.entries().size() - 1);
  const SafetensorsEntry& logits = *golden.Find("logits.last");
  for (size_t i = 0; i < logits.elements(); ++i)
    ASSERT_LE(std::abs(forward.logits()[i] - logits.At(i)), 1e-4) << i;
}

TEST_F(Real, OracleMatchesEveryGoldenStatistic) {
  for (const char* name : {"what-is-2+2.jsonl", "lower-bound.jsonl"}) {
    const auto golden = ReadJsonLines(GoldenPath(name));
    EXPECT_EQ(tokenizer_->Encode(golden[0]["prompt"].get<std::string>()),
              golden[0]["tokens"].get<std::vector<int32_t>>());
    ExpectMatchesGolden(RecordRun<double>(*model_, Backend::oracle, golden[0]["tokens"], kThreads),
                        golden, 1e-6, 1e-4);
  }
}

TEST_F(Real, YardstickHasTheSameTopFive) {
  for (const char* name : {"what-is-2+2.jsonl", "lower-bound.jsonl"}) {
    const auto golden = ReadJsonLines(GoldenPath(name));
    const Trace trace = RecordRun<float>(*model_, Backend::ref, golden[0]["tokens"], kThreads);
    size_t compared = 0;
    for (const nlohmann::json& g : golden) {
      if (g["kind"] != "top") continue;
      const TopRecord& top = trace.tops.at(g["token"]);
      for (size_t i = 0; i < 5; ++i, ++compared) {
        EXPECT_EQ(top.ids[i], g["ids"][i].get<int32_t>()) << g;
        EXPECT_LE(std::abs(top.logits[i] - g["logits"][i].get<double>()), 1e-2) << g;
      }
    }
    EXPECT_EQ(compared, 5 * trace.header.ids.size());
  }
}

// Emulated in float64 by other code: q8 5.4e-4, q16 6.5e-9. Integers flip on ties, so a right pass
// lands near these figures, not on them.
TEST_F(Real, ContractsHaveTheMethodErrorOfTheEmulation) {
  const std::vector<int32_t> ids = {3838, 374, 220, 17, 10, 17, 30};
  const Safetensors file(GoldenPath("what-is-2+2.safetensors"));
  const SafetensorsEntry& golden = *file.Find("logits.last");
  const auto error_of = [&](Contract contract) {
    Forward<double> forward(*model_, RowSet(Backend::oracle, contract), KvType::f32, kThreads,
                            ids.size());
    forward.Run(ids, nullptr);
    double error = 0, energy = 0;
    for (size_t i = 0; i < golden.elements(); ++i) {
      const double d = forward.logits()[i] - golden.At(i);
      error += d * d;
      energy += golden.At(i) * golden.At(i);
    }
    return error / energy;
  };
  const double q8 = error_of(Contract::q8), q16 = error_of(Contract::q16);
  EXPECT_GT(q8, 1e-4);
  EXPECT_LT(q8, 1e-3);
  EXPECT_GT(q16, 1e-9);
  EXPECT_LT(q16, 5e-8);
}

TEST_F(Real, PrefillEqualsDecodeBitForBit) {
  const std::vector<int32_t> ids = {3838, 374, 220, 17, 10, 17, 30};
  const RowSet rows(Backend::oracle, Contract::f32);
  Forward<double> prefill(*model_, rows, KvType::f32, kThreads, ids.size()),
      decode(*model_, rows, KvType::f32, kThreads, ids.size());
  BitRecorder<double> prefill_bits, decode_bits;
  prefill.Run(ids, &prefill_bits);
  for (const int32_t id : ids) decode.Run({&id, 1}, &decode_bits);
  EXPECT_TRUE(prefill_bits.values == decode_bits.values);
}

TEST_F(Real, ChatAnswersTheQuestion) {
  const std::vector<int32_t> prompt = tokenizer_->Encode(ChatMl("What is 2+2?"));
  Forward<float> forward(*model_, RowSet(Backend::ref, Contract::f32), KvType::f32, kThreads,
                         prompt.size() + 24);
  forward.Run(prompt, nullptr);
  std::string answer;
  for (int i = 0; i < 24; ++i) {
    const auto logits = forward.logits();
    const auto id =
        static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    if (tokenizer_->IsEndOfText(id)) break;
    answer += tokenizer_->Decode(id);
    forward.Run({&id, 1}, nullptr);
  }
  EXPECT_NE(answer.find('4'), std::string::npos) << answer;
}

class RealComposed : public Real {};

// The limits on the logits hold for the whole error of the last token, against exact arithmetic:
// what the contract costs and what the rows add.
TEST_F(RealComposed, EverySimdPassIsWithinTheCompositionRule) {
  ComposedOptions options;
  options.kv = KvType::f32;
  options.threads = kThreads;
  const auto results = RunComposed(*model_, tokenizer_->Encode("What is 2+2?"), options,
                                   CandidatesOf(*model_, Backend::hwy, kThreads));
  ASSERT_EQ(results.size(), 3u);
  for (const ContractResult& r : results) {
    SCOPED_TRACE(NameOf(r.contract));
    EXPECT_EQ(r.taps.size(), (3 + 20 * model_->config.layers) * 7);
    for (const TapVerdict& v : r.taps)
      EXPECT_TRUE(v.pass()) << TapPath(v.place.tap, v.place.layer) << " token " << v.place.token
                            << ": " << v.ratio() << " of the allowed error";
    const TokenLogits& last = r.logits.at(6);
    EXPECT_NE(last.status(), TokenStatus::fail);
    const double rse_limits[] = {1e-11, 1e-3, 5e-8};  // f32, q8, q16
    EXPECT_LE(last.candidate.rse, rse_limits[static_cast<size_t>(r.contract)]);
    if (r.contract == Contract::q16) {
      EXPECT_LE(last.candidate.kl, 1e-6);
    }
  }
}

class RealDiff : public Real {
 protected:
  static constexpr RunContract kF32 = {Contract::f32, KvType::f32};
  static constexpr RunContract kQ8 = {Contract::q8, KvType::f16};

  // The oracles over "What is 2+2?", run once: two in float64 and the yardstick.
  void SetUp() override {
    Real::SetUp();
    if (model_ && !reference_)
      reference_ = std::make_unique<ReferenceRuns>(*model_, tokenizer_->Encode("What is 2+2?"),
                                                   std::vector{kQ8}, kThreads);
  }
  static void TearDownTestSuite() {
    reference_.reset();
    Real::TearDownTestSuite();
  }
  static std::unique_ptr<ReferenceRuns> reference_;
};
std::unique_ptr<ReferenceRuns> RealDiff::reference_;

// The case that lab was made for, replayed: two runs 18x apart that are both right, a tap before
// the bias taken for one after it, and a q8 program that differs by what q8 costs.
TEST_F(RealDiff, ReplayOfTheCase) {
  const std::vector<int32_t> ids = tokenizer_->Encode("What is 2+2?");
  const ReferenceRuns& reference = *reference_;
  RunRecord run = RecordPass(*model_, Backend::hwy, kF32, ids, kThreads);
  for (auto& [place, record] : run.tokens) record.row.reset();

  // Pooled over all tokens against the last one: 3.8x in the std of layer 3.
  RunRecord pooled, last;
  std::map<std::pair<int, Tap>, std::vector<const Figures*>> rows;
  for (const auto& [place, record] : run.tokens) {
    rows[{place.layer, place.tap}].push_back(&record.figures);
    if (place.token == 6) last.tokens[place] = record;
  }
  for (const auto& [key, figures] : rows) {
    pooled.pooled[key].tokens.Add(0, 7);
    pooled.pooled[key].figures = PoolFigures(figures);
  }
  pooled.header.ids = last.header.ids = ids;
  pooled.header.std_kind = last.header.std_kind = StdKind::population;
  EXPECT_NEAR(pooled.pooled.at({3, Tap::ffn_swiglu}).figures.std->value, 0.6192, 1e-4);
  EXPECT_NEAR(last.tokens.at({Tap::ffn_swiglu, 3, 6}).figures.std->value, 0.1632, 1e-4);
  EXPECT_EQ(CompareRuns(pooled, last, {}, &reference).verdict(), RunVerdict::not_comparable);
  for (const auto& [theirs, text] :
       {std::pair(&pooled, "pooled over tokens 0-6"), {&last, "of token 6 alone"}}) {
    const auto explained = ExplainRun(reference.exact(), *theirs, kF32, &model_->config);
    const auto swiglu = std::find_if(explained.begin(), explained.end(),
                                     [](const Explanation& e) { return e.tap == Tap::ffn_swiglu; });
    ASSERT_NE(swiglu, explained.end());
    EXPECT_TRUE(swiglu->fits && swiglu->as_named);
    EXPECT_NE(swiglu->text.find(text), std::string::npos) << swiglu->text;
    EXPECT_LE(swiglu->residual, 1e-5);
  }

  // Their qkv is before the bias.
  RunRecord theirs;
  theirs.header.ids = ids;
  for (size_t t = 0; t < ids.size(); ++t)
    for (int layer = 0; layer < 28; ++layer) {
      std::vector<const Figures*> parts;
      for (const Tap tap : {Tap::q_proj, Tap::k_proj, Tap::v_proj})
        parts.push_back(&run.tokens.at({tap, layer, t}).figures);
      theirs.tokens[{Tap::qkv, layer, t}].figures = PoolFigures(parts);
    }
  EXPECT_EQ(CompareRuns(run, theirs, {}, &reference).verdict(), RunVerdict::different);
  const auto qkv = ExplainRun(run, theirs, kF32, nullptr);
  ASSERT_EQ(qkv.size(), 1u);
  EXPECT_TRUE(qkv[0].fits);
  EXPECT_EQ(qkv[0].text, "our `q_proj|k_proj|v_proj` (before the bias)");
  EXPECT_EQ(qkv[0].sureness, Sureness::likely);

  // A q8 program against an f32 one, by statistics and by values.
  const RunRecord q8 = RecordPass(*model_, Backend::hwy, kQ8, ids, kThreads);
  const RunRecord f32 = RecordPass(*model_, Backend::hwy, kF32, ids, kThreads);
  for (const RunRecord* other : {&std::as_const(run), &f32}) {
    const RunComparison c = CompareRuns(*other, q8, {}, &reference);
    const Compared* first = c.first_different();
    EXPECT_EQ(c.verdict(), RunVerdict::within)
        << TapPath(first->place.tap, first->place.layer) << " token " << first->place.token << ": "
        << first->ratio();
    EXPECT_EQ(NameOf(c.contract), "q8 (KV f16)");
    EXPECT_FALSE(c.estimated);
  }
  // What q8 costs at the massive token is in the report: at its worst far more than at the others.
  const DiffResult diff = {&f32, &q8, CompareRuns(f32, q8, {}, &reference), {}, {}, {}, false};
  const std::string report = DiffTo(Format::text, diff);
  EXPECT_NE(report.find("verdict: within contract q8 (KV f16)\n"), std::string::npos) << report;
  const size_t at = report.find("method error of q8 (KV f16)");
  ASSERT_NE(at, std::string::npos) << report;
  double massive = 0, others = 0;
  EXPECT_EQ(
      std::sscanf(report.c_str() + report.find("\n", at),
                  " token 0, massive (%*[^)]): %*f, %lf at%*[^\n]\n the other tokens: %*f, %lf",
                  &massive, &others),
      2)
      << report.substr(at);
  EXPECT_GT(massive, 10 * others);
  const double norm = reference.exact().tokens.at({Tap::ffn_out, 26, 0}).figures.l2->value;
  EXPECT_GT(*reference.MethodError(kQ8, {Tap::ffn_out, 26, 0}) / norm, 0.005);
}

// llama.cpp's own log, whose integer matvecs and KV cache of half floats make it q8: right, and
// one printed value that is not (its quantisation costs 0.2 there).
TEST_F(RealDiff, LlamaLogIsWithinItsContract) {
  const TempDir dir;
  RunRecord theirs =
      ReadRun(WriteBytes(dir / "log", UnzippedGolden("llama-debug.what-is-2+2.txt.gz")));
  const ReferenceRuns& reference = *reference_;
  const RunRecord& q8 = reference.oracle(kQ8);
  RunComparison c = CompareRuns(q8, theirs, {}, &reference);
  EXPECT_EQ(c.verdict(), RunVerdict::within);
  EXPECT_GT(c.places.size(), 2900u);
  EXPECT_FALSE(c.estimated);
  for (const Explanation& e : ExplainRun(q8, theirs, kQ8, &model_->config))
    EXPECT_TRUE(e.fits && e.as_named) << InfoOf(e.tap).name << ": " << e.text;
  const Place place = {Tap::ffn_up, 12, 2};
  theirs.tokens.at(place).values.at(1).value += 10 * 0.2;
  c = CompareRuns(q8, theirs, {}, &reference);
  ASSERT_EQ(c.verdict(), RunVerdict::different);
  EXPECT_EQ(c.first_different()->place, place);
  EXPECT_EQ(c.first_different()->distance.channel, 1u);
  EXPECT_TRUE(c.first_different()->by_value());
}

TEST_F(RealDiff, TheLawsHoldOnRealRuns) {
  const std::vector<int32_t> ids = tokenizer_->Encode("What is 2+2?");
  for (const RunContract& contract : {kF32, kQ8}) {
    RunRecord run = RecordPass(*model_, Backend::hwy, contract, ids, kThreads);
    run.header.head_dim = model_->config.head_dim;
    const auto checks = CheckLaws(run);
    EXPECT_GT(checks.size(), 2000u);
    for (const LawCheck& c : checks)
      EXPECT_TRUE(c.holds()) << c.law << " at " << TapPath(c.place.tap, c.place.layer) << " token "
                             << c.place.token << ": " << c.ratio();
  }
}

}  // namespace
}  // namespace lab
