// lab bisect --blame: exchanging one step at a time.
#include "lab/step_blame.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "lab/error.h"
#include "model/repack.h"

namespace lab {
namespace {

const std::vector<int32_t> kIds = {87, 104, 97, 300, 5};

RowSet RowsWith(Contract contract, const std::vector<std::string>& rules) {
  RowSet rows(Backend::hwy, contract);
  rows.Use(ParseUse(rules, contract, 28));
  return rows;
}

// One wrong step: alone it is the whole candidate, repaired it is gone, bit for bit.
TEST(StepBlame, AloneAndRepairedAgreeWhereOneStepDiffers) {
  const Qwen2 model = OpenModel("tiny");
  const StepBlame blame =
      BlameSteps(model, RowsWith(Contract::f32, {"silu@9=mutant:gelu"}), kIds, {.threads = 2});
  ASSERT_EQ(blame.steps.size(), 1u);
  EXPECT_EQ(blame.steps[0].name, "L09.silu");
  EXPECT_GT(blame.candidate, 1e-6);
  EXPECT_EQ(blame.steps[0].alone, blame.candidate);
  EXPECT_LT(std::abs(blame.steps[0].repaired), 1e-13);
  EXPECT_LT(std::abs(blame.oracle), 1e-9);
}

TEST(StepBlame, RanksTheWrongMatrixFirst) {
  Qwen2 model = OpenModel("tiny");
  Repack(model, 2);
  const RowSet rows = RowsWith(Contract::q8, {"down_proj@11=mutant:transposed"});
  const StepBlame blame = BlameSteps(model, rows, kIds, {.threads = 2, .kv = KvType::f16});
  EXPECT_EQ(blame.steps[0].name, "L11.down_proj");
  const auto best = std::min_element(
      blame.steps.begin(), blame.steps.end(),
      [](const BlamedStep& a, const BlamedStep& b) { return a.repaired < b.repaired; });
  EXPECT_EQ(best->name, "L11.down_proj");
  // Every layer: q, k, v, o, gate_up_swiglu, down_proj; and lm_head. Norms and the like are the
  // same rows under every contract.
  EXPECT_EQ(blame.steps.size(), 28u * 6 + 1);
  for (const BlamedStep& s : blame.steps) EXPECT_NE(s.alone, 0) << s.name;
}

// The embedding is the one step that no layer can resume behind.
TEST(StepBlame, TheEmbeddingCanBeBlamed) {
  const Qwen2 model = OpenModel("tiny");
  const StepBlame blame = BlameSteps(model, RowsWith(Contract::f32, {"embed=mutant:rows_rotated"}),
                                     kIds, {.threads = 2});
  ASSERT_EQ(blame.steps.size(), 1u);
  EXPECT_GT(blame.candidate, 1e-6);
  EXPECT_EQ(blame.steps[0].alone, blame.candidate);
}

TEST(StepBlame, ShardsAreDisjointAndComplete) {
  const Qwen2 model = OpenModel("tiny");
  const RowSet rows = RowsWith(Contract::q16, {});
  std::vector<std::string> names, all;
  StepBlameOptions options = {.layers = {{3, 3}, {8, 8}}};
  for (const BlamedStep& s : BlameSteps(model, rows, kIds, options).steps) all.push_back(s.name);
  for (options.shard = {1, 3}; options.shard.part <= 3; ++options.shard.part)
    for (const BlamedStep& s : BlameSteps(model, rows, kIds, options).steps)
      names.push_back(s.name);
  std::sort(names.begin(), names.end());
  std::sort(all.begin(), all.end());
  EXPECT_EQ(names, all);
  EXPECT_EQ(all.size(), 12u);
}

TEST(StepBlame, NothingToExchangeIsAnError) {
  const Qwen2 model = OpenModel("tiny");
  try {
    BlameSteps(model, RowsWith(Contract::f32, {}), kIds, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), kNotComparable);
  }
}

// What the sweep relies on.
TEST(Forward, ResumedPassHasTheBitsOfTheWhole) {
  Qwen2 model = OpenModel("tiny");
  Repack(model, 2);
  class Entering : public TapSink<float> {
   public:
    bool Wants(Tap tap, int) const override { return tap == Tap::layer_out; }
    void OnTap(const TapView<float>& v) override {
      values.emplace_back(v.values, v.values + v.tokens * v.n);
    }
    std::vector<std::vector<float>> values;
  };
  for (const Contract contract : {Contract::f32, Contract::q8}) {
    const RowSet rows(Backend::hwy, contract);
    Entering entering;
    Forward<float> whole(model, rows, KvType::f16, 2, kIds.size());
    whole.Run(kIds, &entering);
    const std::vector<float> expected(whole.logits().begin(), whole.logits().end());
    for (const size_t layer : {size_t{1}, size_t{17}, size_t{28}}) {
      Forward<float> rest(model, rows, KvType::f16, 1, kIds.size());
      rest.Resume(layer, entering.values[layer - 1], nullptr);
      EXPECT_EQ(std::vector<float>(rest.logits().begin(), rest.logits().end()), expected) << layer;
      EXPECT_EQ(rest.position(), kIds.size());
    }
  }
}

// One matrix of another contract in a pass rounds its own input; the others read floats as before.
TEST(Forward, OneMatrixMayFollowAnotherContract) {
  const Qwen2 model = OpenModel("tiny");
  const auto logits = [&](Contract contract, const std::vector<std::string>& rules) {
    Forward<float> forward(model, RowsWith(contract, rules), KvType::f32, 1, kIds.size());
    forward.Run(kIds, nullptr);
    return std::vector<float>(forward.logits().begin(), forward.logits().end());
  };
  const std::vector<float> f32 = logits(Contract::f32, {}), q8 = logits(Contract::q8, {});
  const std::vector<float> one = logits(Contract::f32, {"down_proj@3=MatvecQ8Hwy"});
  EXPECT_NE(one, f32);
  EXPECT_NE(one, q8);
  const std::vector<std::string> all_q8 = {"matvec=MatvecQ8Hwy", "down_proj=MatvecQ8Hwy",
                                           "gate_up_swiglu=GateUpSwigluQ8Hwy"};
  EXPECT_EQ(logits(Contract::f32, all_q8), logits(Contract::q8, all_q8));
  const std::vector<std::string> all_f32 = {"matvec=MatvecHwy", "down_proj=MatvecHwy",
                                            "gate_up_swiglu=GateUpSwigluHwy"};
  EXPECT_EQ(logits(Contract::q8, all_f32), f32);
}

// q alone rounds what it shares with k: the yardstick's k would read the integers if it got them.
TEST(Forward, NeighboursOfARoundedMatrixReadFloats) {
  const Qwen2 model = OpenModel("tiny");
  const auto projections = [&](std::vector<UseRule> rules) {
    class Recorder : public TapSink<float> {
     public:
      bool Wants(Tap tap, int layer) const override {
        return layer == 0 && (tap == Tap::q_bias || tap == Tap::k_bias);
      }
      void OnTap(const TapView<float>& v) override {
        values.emplace_back(v.values, v.values + v.n);
      }
      std::vector<std::vector<float>> values;  // q, k of the first token
    };
    RowSet rows(Backend::ref, Contract::f32);
    rows.Use(std::move(rules));
    Recorder recorder;
    Forward<float>(model, rows, KvType::f32, 1, kIds.size()).Run(kIds, &recorder);
    return recorder.values;
  };
  UseRule q8;
  q8.op = Op::matvec;
  q8.row = FindRow(Op::matvec, Contract::q8, Backend::ref);
  q8.matvec = "q_proj";
  const auto plain = projections({}), mixed = projections({q8});
  EXPECT_NE(plain[0], mixed[0]);
  EXPECT_EQ(plain[1], mixed[1]);
}

}  // namespace
}  // namespace lab
