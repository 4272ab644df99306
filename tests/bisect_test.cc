// lab bisect: right candidates raise no alarm, every mutant is found where it is, capsules still
// fail, blame and xray name what was broken.
#include "lab/bisect.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "lab/error.h"
#include "lab/reduce.h"
#include "model/repack.h"
#include "tests/bisect_util.h"
#include "tests/test_util.h"

namespace lab {
namespace {

const std::vector<int32_t> kIds = {87, 104, 97, 300, 5};

Qwen2 RepackedTiny() {
  Qwen2 model = OpenModel("tiny");
  Repack(model, 2);
  return model;
}

const std::vector<Contract> kContracts = {Contract::f32, Contract::q16, Contract::q8};

TEST(Bisect, RightCandidatesRaiseNoAlarm) {
  const Qwen2 model = RepackedTiny();
  const std::vector<int> threads = kSanitized ? std::vector{2} : std::vector{1, 2};
  size_t runs = 0;
  EXPECT_EQ(CountAlarms(model, {kIds}, kContracts, threads, &runs), 0u);
  EXPECT_EQ(runs, 12 * threads.size());
}

// Half a minute: by hand.
TEST(Bisect, DISABLED_HundredRightCandidatesRaiseNoAlarm) {
  const Qwen2 model = RepackedTiny();
  size_t runs = 0;
  std::vector<std::vector<int32_t>> prompts(5);
  for (size_t p = 0; p < prompts.size(); ++p)
    for (size_t t = 0; t < 3 + p; ++t) prompts[p].push_back(static_cast<int32_t>(37 * p + 11 * t));
  EXPECT_EQ(CountAlarms(model, prompts, kContracts, {1, 3}, &runs), 0u);
  EXPECT_EQ(runs, 120u);
}

// Where a mutant moves a result by no more than rounding may, nothing can tell it from a right row:
// its verdict is "pass" and its name must be here.
TEST(Bisect, NamesOpAndLayerOfEveryMutant) {
  const Qwen2 model = RepackedTiny();
  // A sanitizer build would take half an hour for the same code.
  const std::vector<int> layers = kSanitized ? std::vector{13} : std::vector{4, 13, 22};
  const Shard shard = kSanitized ? Shard{1, 4} : Shard{};
  const MutantSweep sweep = SweepMutants(model, {87, 104, 97}, layers, 2, true, shard);
  EXPECT_EQ(sweep.misnamed, std::vector<std::string>());
  EXPECT_GE(sweep.found.size(), 60 / shard.parts);
  EXPECT_GT(sweep.runs, 133 * layers.size() / shard.parts);
  const std::set<std::string_view> within_rounding(std::begin(kWithinRounding),
                                                   std::end(kWithinRounding));
  for (const std::string& name : sweep.missed)
    EXPECT_TRUE(within_rounding.contains(name)) << name << " was not found";
  RecordProperty("runs", static_cast<int>(sweep.runs));
  RecordProperty("found", static_cast<int>(sweep.found.size()));
  EXPECT_EQ(sweep.false_alarms, std::vector<std::string>());
}

RowSet RowsWith(const std::string& rule, Contract contract = Contract::f32,
                Backend backend = Backend::hwy) {
  RowSet rows(backend, contract);
  rows.Use(ParseUse({rule}, contract, 28));
  return rows;
}

TEST(Bisect, WhatAStepInheritsIsAccumulatedErrorAlone) {
  const Qwen2 model = OpenModel("tiny");
  Bisector bisector(model, Contract::f32, KvType::f32, kIds, 2);
  const BisectResult result = bisector.Run(RowsWith("down_proj@5=mutant:transposed"), {});
  ASSERT_NE(result.FirstWrong(), nullptr);
  EXPECT_EQ(result.FirstWrong()->name, "L05.down_proj");
  for (const StepVerdict& s : result.steps) {
    EXPECT_EQ(s.wrong(), s.name == "L05.down_proj") << s.name;
    const bool behind = s.layer > 5 || s.name == "L05.layer_out" || s.name == "lm_head";
    if (s.accumulated && s.layer < 5 && s.layer != kNoLayer) {
      EXPECT_LT(*s.accumulated, 1e-4) << s.name;
    }
    if (s.accumulated && behind) {
      EXPECT_GT(*s.accumulated, 1e-3) << s.name;
    }
    if (s.name == "L05.down_proj") {
      EXPECT_GT(s.amplification.value(), 1e3);
    }
  }
}

TEST(Bisect, FiltersByLayerAndOp) {
  const Qwen2 model = OpenModel("tiny");
  Bisector bisector(model, Contract::f32, KvType::f32, {1, 2}, 1);
  const RowSet rows(Backend::ref, Contract::f32);
  const BisectResult two = bisector.Run(rows, {{{3, 4}}, "L07.q_proj,silu,*k_rope"});
  ASSERT_EQ(two.steps.size(), 2u);
  EXPECT_EQ(two.steps[0].name, "L03.k_rope");
  EXPECT_EQ(bisector.Run(rows, {{}, "lm_head,embed"}).steps.size(), 2u);
  try {
    bisector.Run(rows, {{}, "nosuch"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), kNotComparable);
  }
}

// A rule about silu takes the fused step of its layer apart; rounding is a step where there is
// some.
TEST(Bisect, StepsAreThoseOfThePass) {
  const Qwen2 model = OpenModel("tiny");
  const auto names = [&](Contract contract, const std::string& rule) {
    Bisector bisector(model, contract, KvType::f32, {1, 2}, 1);
    std::string all;
    for (const StepVerdict& s : bisector.Run(RowsWith(rule, contract), {{{3, 3}}, ""}).steps)
      all += s.name.substr(4) + " ";
    return all;
  };
  EXPECT_EQ(names(Contract::f32, "silu@3=SiluRef"),
            "attn_norm q_proj k_proj v_proj q_rope k_rope attn_ctx attn_output attn_residual "
            "ffn_norm gate_up silu swiglu down_proj layer_out ");
  EXPECT_EQ(names(Contract::q8, "silu@4=SiluRef"),
            "attn_norm quantize_attn_norm q_proj k_proj v_proj q_rope k_rope attn_ctx "
            "quantize_attn_ctx attn_output attn_residual ffn_norm quantize_ffn_norm gate_up_swiglu "
            "quantize_ffn_swiglu down_proj layer_out ");
}

TEST(Bisect, NonFiniteValuesAreNamed) {
  const Qwen2 model = OpenModel("tiny");
  Bisector bisector(model, Contract::f32, KvType::f32, kIds, 1);
  const BisectResult result = bisector.Run(RowsWith("rms_norm@7=mutant:nan_element"), {});
  EXPECT_EQ(result.not_finite, "L07.attn_norm token 2 channel 128");
  EXPECT_EQ(result.FirstWrong()->name, "L07.attn_norm");
}

// A part of every failing case still fails, fits into a file and is smaller.
TEST(Bisect, CapsulesStillFail) {
  const Qwen2 model = OpenModel("tiny");
  const struct {
    const char* rule;
    size_t tokens, rows;
  } kCases[] = {{"down_proj@3=mutant:transposed", 1, 8},
                {"gate_up@3=mutant:rows_rotated", 1, 8},
                {"matvec@3=mutant:token_repeated", 5, 1},
                {"silu@3=mutant:gelu", 1, 0},
                {"gqa_attention@3=mutant:head_map_modulo", 1, 0},
                {"rope@3=mutant:rope_position_off_by_one", 1, 0},
                {"residual_add@3=mutant:residual_dropped", 1, 0},
                {"rms_norm@3=mutant:norm_weight_omitted", 1, 0}};
  Bisector bisector(model, Contract::f32, KvType::f32, kIds, 1);
  for (const auto& [rule, tokens, rows] : kCases) {
    SCOPED_TRACE(rule);
    const BisectResult result = bisector.Run(RowsWith(rule), {{{3, 3}}, ""});
    const StepVerdict* first = result.FirstWrong();
    ASSERT_NE(first, nullptr);
    const Case whole = bisector.CaseOf(*first);
    const Case part =
        Reduce(whole, first->verdict.token, first->verdict.channel,
               [&](const Case& c) { return bisector.Judge(c, first->use).status == Status::fail; });
    EXPECT_EQ(ShapeProblem(part), "");
    EXPECT_EQ(bisector.Judge(part, first->use).status, Status::fail);
    EXPECT_LE(part.tokens, tokens);
    EXPECT_LE(part.w.data ? part.w.rows : 0, rows);
    EXPECT_LT(DataBytes(part), DataBytes(whole));
  }
}

}  // namespace
}  // namespace lab
