// lab diff --local: the wrong op of a program whose code nobody sees is named, right ones pass.
#include "lab/local.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "kernels/half.h"
#include "lab/error.h"
#include "lab/local_report.h"
#include "reference/dequant_ref.h"
#include "tests/foreign_dump.h"
#include "tests/run_util.h"

namespace lab {
namespace {

RunRecord ReadForeign(const Dump& dump) {
  const TempDir dir;
  return ReadRun(WriteDump(dir / "dump.safetensors", dump),
                 NameMap::Read(GoldenPath("tiny.foreign.toml")));
}

LocalResult Judged(const RunRecord& run) {
  return JudgeLocally(TinyModel(), run, 1);
}

std::vector<std::string> Wrong(const LocalResult& result) {
  std::vector<std::string> names;
  for (const LocalStep& s : result.steps)
    if (s.wrong()) names.push_back(s.name);
  return names;
}

std::string Worst(const LocalResult& result) {
  double worst = -1;
  std::string name;
  for (const LocalStep& s : result.steps)
    if (s.judged() && s.verdict.worst > worst)
      worst = s.verdict.worst, name = fmt::format("{} at {}", s.name, worst);
  return name;
}

const LocalStep& StepOf(const LocalResult& result, const std::string& name) {
  for (const LocalStep& s : result.steps)
    if (s.name == name) return s;
  throw Error(kInternal, name);
}

TEST(Local, ARightForeignDumpPasses) {
  const RunRecord run = ReadForeign(ForeignDump(""));
  EXPECT_EQ(run.report.unexplained, 0u) << run.report.first_of_them.at(0);
  const LocalResult result = Judged(run);
  EXPECT_EQ(Wrong(result), std::vector<std::string>{}) << Worst(result);
  EXPECT_EQ(result.judged(), 16u) << "the embedding and every step of layer 5";
  EXPECT_EQ(LocalExitCode(result), kPass);
  EXPECT_TRUE(result.contract_is_a_guess && result.kv_is_a_guess);
  EXPECT_EQ(result.contract, (RunContract{Contract::f32, KvType::f32}));
  EXPECT_FALSE(StepOf(result, "L04.q_proj").judged());
}

TEST(Local, TheWrongOpOfAForeignDumpIsNamed) {
  const std::pair<const char*, const char*> mistakes[] = {{"gelu", "L05.silu"},
                                                          {"transposed", "L05.q_proj"},
                                                          {"rope", "L05.q_rope"},
                                                          {"head_map", "L05.attn_ctx"},
                                                          {"bias", "L05.k_proj"}};
  for (const auto& [mistake, step] : mistakes) {
    const LocalResult result = Judged(ReadForeign(ForeignDump(mistake)));
    EXPECT_EQ(Wrong(result), std::vector<std::string>{step}) << mistake << " " << Worst(result);
    EXPECT_EQ(LocalExitCode(result), kNumericFailure);
  }
  const LocalStep step = StepOf(Judged(ReadForeign(ForeignDump("bias"))), "L05.k_proj");
  EXPECT_EQ(step.place, "L05.k_bias") << "the product before the bias is right";
}

// --- how values are stored ---

std::vector<float> FloatsOf(const DumpTensor& t) {
  std::vector<float> values(t.data.size() / sizeof(float));
  std::memcpy(values.data(), t.data.data(), t.data.size());
  return values;
}

template <class T, class Convert>
Dump Stored(Dump dump, const char* dtype, Convert convert) {
  for (auto& [name, t] : dump) {
    if (t.dtype != "F32") continue;
    std::vector<T> values;
    for (const float x : FloatsOf(t)) values.push_back(convert(x));
    t.dtype = dtype, t.data = BytesOfValues(values);
  }
  return dump;
}
uint16_t Bf16Bits(float x) {
  return static_cast<uint16_t>(RoundedToBf16(x) >> 16);
}
Dump AsDoubles(const Dump& d) {
  return Stored<double>(d, "F64", [](float x) { return static_cast<double>(x); });
}
Dump AsHalves(const Dump& d) {
  return Stored<uint16_t>(d, "F16", [](float x) { return FloatToHalf(x); });
}
Dump AsBf16(const Dump& d) {
  return Stored<uint16_t>(d, "BF16", Bf16Bits);
}
Dump AsWidenedBf16(const Dump& d) {
  return Stored<float>(d, "F32", [](float x) { return std::bit_cast<float>(RoundedToBf16(x)); });
}

TEST(Local, StoringInFewBitsIsAllowedFor) {
  for (const auto& store : {AsDoubles, AsHalves, AsBf16, AsWidenedBf16}) {
    const LocalResult right = Judged(ReadForeign(store(ForeignDump(""))));
    EXPECT_EQ(Wrong(right), std::vector<std::string>{}) << Worst(right);
    EXPECT_EQ(right.judged(), 16u);
    for (const auto& [mistake, step] : {std::pair("gelu", "L05.silu"), {"rope", "L05.q_rope"}})
      EXPECT_EQ(Wrong(Judged(ReadForeign(store(ForeignDump(mistake))))),
                std::vector<std::string>{step});
  }
  const RunRecord widened = ReadForeign(AsWidenedBf16(ForeignDump("")));
  EXPECT_EQ(widened.header.rounded_to, StoredType::bf16);
  EXPECT_FALSE(ReadForeign(ForeignDump("")).header.rounded_to);
}

TEST(Local, OneUlpOfALabDumpIsSeen) {
  RunRecord run = TinyRun(Backend::ref);
  std::vector<double> row = run.tokens.at({Tap::layer_out, 2, 1}).row->Read();
  row[3] = std::nextafterf(static_cast<float>(row[3]), 1e9f);
  PutRow(run, {Tap::layer_out, 2, 1}, row);
  const LocalResult result = Judged(run);
  // The next step that adds to it starts from the changed value, and has not used it.
  ASSERT_EQ(Wrong(result), (std::vector<std::string>{"L02.layer_out", "L03.attn_residual"}));
  const LocalStep& step = *result.FirstWrong();
  EXPECT_EQ(step.verdict.token, 1u);
  EXPECT_EQ(step.verdict.channel, 3u);
  EXPECT_EQ(step.place, "L02.layer_out");
}

// --- contracts ---

TEST(Local, OurOwnRunsPassUnderTheirContractNamedOrNot) {
  const RunContract contracts[] = {{Contract::f32, KvType::f32},
                                   {Contract::f32, KvType::f16},
                                   {Contract::q16, KvType::f32},
                                   {Contract::q8, KvType::f16}};
  for (const RunContract& contract : contracts)
    for (const bool named : {true, false}) {
      if (named && contract.contract != Contract::q8) continue;  // the other way is the harder one
      RunRecord run = TinyRun(Backend::hwy, contract);
      if (!named) {
        run.header.contract.reset(), run.header.kv.reset();
        run.header.arithmetic.reset();
      }
      const LocalResult result = Judged(run);
      EXPECT_EQ(Wrong(result), std::vector<std::string>{}) << NameOf(contract) << Worst(result);
      EXPECT_EQ(result.contract, contract);
      EXPECT_EQ(result.contract_is_a_guess, !named);
      EXPECT_EQ(result.judged(), 28u * 15 + 3);
    }
  EXPECT_EQ(Wrong(Judged(TinyRun(Backend::oracle))), std::vector<std::string>{});
}

// --- what is not there ---

TEST(Local, StepsWithoutTheirTapsAreListed) {
  Dump dump = ForeignDump("");
  dump.erase("model.layers.4");
  dump.erase("input_ids");
  const LocalResult result = Judged(ReadForeign(dump));
  EXPECT_EQ(Wrong(result), std::vector<std::string>{});
  EXPECT_EQ(StepOf(result, "L05.attn_norm").missing, std::vector<std::string>{"L04.layer_out"});
  EXPECT_EQ(StepOf(result, "embedding").missing, std::vector<std::string>{"token ids"});
  EXPECT_EQ(result.judged(), 13u);
}

// --- bridges over taps that are not there ---

using Names = std::vector<std::string>;

Names Over(const LocalStep& step) {
  Names names;
  for (const auto& [name, op] : step.over) names.push_back(name);
  return names;
}

// Hooks on modules do not see RoPE, which is none.
Dump WithoutRope(const std::string& mistake) {
  Dump dump = ForeignDump(mistake);
  EXPECT_EQ(dump.erase("my.5.rope_q") + dump.erase("my.5.rope_k"), 2u);
  return dump;
}

TEST(Local, MissingTapsAreBridged) {
  const LocalResult right = Judged(ReadForeign(WithoutRope("")));
  EXPECT_EQ(Wrong(right), Names{}) << Worst(right);
  EXPECT_EQ(right.judged(), 14u);
  EXPECT_EQ(Over(StepOf(right, "L05.attn_ctx")), (Names{"L05.q_rope", "L05.k_rope"}));
  EXPECT_FALSE(StepOf(right, "L05.q_rope").judged());
  for (const char* mistake : {"rope", "head_map"}) {
    const RunRecord run = ReadForeign(WithoutRope(mistake));
    const LocalResult wrong = Judged(run);
    EXPECT_EQ(Wrong(wrong), Names{"L05.attn_ctx"}) << mistake << " " << Worst(wrong);
    EXPECT_TRUE(LocalTo(Format::text, run, wrong)
                    .starts_with("WRONG from L05.q_rope..attn_ctx on: op rope..gqa_attention: "))
        << LocalTo(Format::text, run, wrong);
  }
  // What is wrong before and behind the gap is not blamed on it.
  EXPECT_EQ(Wrong(Judged(ReadForeign(WithoutRope("bias")))), Names{"L05.k_proj"});
  EXPECT_EQ(Wrong(Judged(ReadForeign(WithoutRope("gelu")))), Names{"L05.silu"});
}

// Every tap inside a layer in turn: a right run passes, and an output that is off by a thousandth
// behind the gap fails.
TEST(Local, ABridgeOverAnyTapJudgesBothWays) {
  RunRecord whole = TinyRun(Backend::hwy);
  // Layer 3 and what it gets from the one before; all 28, judged 22 times, take eight seconds.
  std::erase_if(whole.tokens,
                [](const auto& entry) { return entry.first.layer != 2 && entry.first.layer != 3; });
  const std::tuple<Tap, Tap, const char*> gaps[] = {
      {Tap::attn_norm, Tap::q_bias, "L03.q_proj"},
      {Tap::q_bias, Tap::q_rope, "L03.q_rope"},
      {Tap::v_bias, Tap::attn_ctx, "L03.attn_ctx"},
      {Tap::attn_ctx, Tap::attn_out, "L03.attn_output"},
      {Tap::attn_out, Tap::attn_residual, "L03.attn_residual"},
      {Tap::attn_residual, Tap::ffn_norm, "L03.ffn_norm"},
      {Tap::ffn_norm, Tap::ffn_up, "L03.gate_up"},
      {Tap::ffn_gate, Tap::ffn_silu, "L03.silu"},
      {Tap::ffn_up, Tap::ffn_swiglu, "L03.swiglu"},
      {Tap::ffn_swiglu, Tap::ffn_out, "L03.down_proj"},
      {Tap::ffn_out, Tap::layer_out, "L03.layer_out"}};
  for (const auto& [gap, output, name] : gaps) {
    SCOPED_TRACE(name);
    RunRecord run = whole;
    for (size_t t = 0; t < kRunIds.size(); ++t) run.tokens.erase({gap, 3, t});
    const LocalResult right = Judged(run);
    EXPECT_EQ(Wrong(right), Names{}) << Worst(right);
    EXPECT_EQ(StepOf(right, name).over.size(), 1u);
    std::vector<double> row = run.tokens.at({output, 3, 2}).row->Read();
    row[7] *= 1.001;
    PutRow(run, {output, 3, 2}, row);
    const LocalResult wrong = Judged(run);
    EXPECT_EQ(std::ranges::count(Wrong(wrong), name), 1) << Worst(wrong);
  }
}

TEST(Local, ABridgeThatJudgesNothingIsNotJudged) {
  RunRecord run = TinyRun(Backend::hwy);
  std::erase_if(run.tokens, [](const auto& entry) {
    return entry.first.layer == 3 && entry.first.tap != Tap::layer_out;
  });
  const LocalStep step = StepOf(Judged(run), "L03.layer_out");
  EXPECT_EQ(step.over.size(), 12u);
  ASSERT_EQ(step.missing.size(), 1u);
  EXPECT_NE(step.missing[0].find("grown to the size of the values"), std::string::npos);
}

// Under q8 a matrix reads integers; from a computed input they could be others.
TEST(Local, AMatrixBehindABridgeIsNotJudgedUnderIntegers) {
  RunRecord run = TinyRun(Backend::hwy, {Contract::q8, KvType::f16});
  std::erase_if(run.tokens, [](const auto& entry) {
    return (entry.first.layer != 2 && entry.first.layer != 3) || entry.first.tap == Tap::attn_norm;
  });
  const LocalResult result = Judged(run);
  for (const char* name : {"L03.q_proj", "L03.v_proj"}) {
    ASSERT_EQ(StepOf(result, name).missing.size(), 1u) << name;
    EXPECT_NE(StepOf(result, name).missing[0].find("the integers are not known"),
              std::string::npos);
  }
  EXPECT_EQ(Wrong(result), Names{});
}

// A program that fuses silu into the product shows neither.
TEST(Local, AFusedActivationIsJudgedFromItsInput) {
  for (const auto& [mistake, wrong] :
       {std::pair("", std::vector<std::string>{}), {"gelu", {"L05.gate_up_swiglu"}}}) {
    Dump dump = ForeignDump(mistake);
    dump.erase("model.layers.5.mlp.act_fn");
    EXPECT_EQ(Wrong(Judged(ReadForeign(dump))), wrong) << mistake;
  }
}

TEST(Local, TokensThatAreThereAreJudged) {
  RunRecord run = ReadForeign(ForeignDump("gelu"));
  run.tokens.erase({Tap::ffn_silu, 5, 1});
  LocalResult result = Judged(run);
  EXPECT_EQ(Wrong(result), std::vector<std::string>{"L05.silu"});
  EXPECT_EQ(StepOf(result, "L05.silu").verdict.compared, 2u * 768);
  EXPECT_NE(StepOf(result, "L05.silu").verdict.token, 1u);
  // Without the keys of token 1, only token 0 knows all that it attends to.
  run = ReadForeign(ForeignDump(""));
  run.tokens.erase({Tap::k_rope, 5, 1});
  EXPECT_EQ(StepOf(Judged(run), "L05.attn_ctx").verdict.compared, 256u);
}

TEST(Local, NothingJudgedAndNotFinite) {
  Dump dump = {
      {"model.layers.5.mlp.act_fn", FloatTensor({1, 1, 768}, std::vector<float>(768, 0.5f))}};
  const LocalResult nothing = Judged(ReadForeign(dump));
  EXPECT_EQ(nothing.judged(), 0u);
  EXPECT_EQ(LocalExitCode(nothing), kNotComparable);

  dump = ForeignDump("");
  const float nan = std::nanf("");
  std::memcpy(&dump.at("model.layers.5.mlp.act_fn").data[40], &nan, sizeof nan);
  const LocalResult result = Judged(ReadForeign(dump));
  EXPECT_EQ(result.FirstWrong()->name, "L05.silu");
  EXPECT_EQ(result.FirstWrong()->verdict.channel, 10u);
  EXPECT_EQ(LocalExitCode(result), kNonFinite);
}

TEST(Local, ARunOfAnotherModelIsNotComparable) {
  const auto refused = [](const RunRecord& run, const std::string& why) {
    try {
      Judged(run);
      ADD_FAILURE() << why;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), kNotComparable);
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
    }
  };
  RunRecord run;
  PutRow(run, {Tap::ffn_up, 3, 0}, std::vector<double>(700));
  refused(run, "L03.ffn_up has 700 channels, the model 768");
  run = {};
  PutRow(run, {Tap::ffn_up, 28, 0}, std::vector<double>(768));
  refused(run, "it has a layer 28, the model has 28 layers");
  run = ReadForeign(ForeignDump(""));
  run.header.ids->at(0) = 512;
  refused(run, "token 512 is outside the vocabulary");
  run.header.layers = 24;
  refused(run, "it has 24 layers, the model 28");
  refused(StatisticsOf(TinyRun()), "--local needs tensors");
}

}  // namespace
}  // namespace lab
