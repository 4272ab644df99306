// A pass that stays on the device, and its graph, through the SIMT layer.
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/launchers.cuh"
#include "lab/error.h"
#include "tests/golden.h"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

constexpr Contract kContracts[] = {Contract::f32, Contract::q8, Contract::q16};

// A pass over the tiny model that keeps everything on the device; or, with a rule that changes
// nothing, one whose rows copy in and out.
Forward<float> MakePass(const Qwen2& model, Contract contract, bool on_device = true) {
  RowSet rows(Backend::cuda_host, contract);
  if (!on_device) rows.Use(ParseUse({"silu@0=SiluCudaHost"}, contract, model.config.layers));
  return Forward<float>(model, std::move(rows), DefaultKv(contract), 1, 24);
}

size_t DeviceMemoryInUse() {
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  return total - free;
}

// Two layers of it: what one leaves in the buffers, the other would find.
Qwen2 TwoLayers() {
  Qwen2 model = OpenModel("tiny");
  model.config.layers = 2;
  model.layers.resize(2);
  return model;
}

class CudaHostPass : public testing::Test {
 protected:
  const Qwen2 model_ = TwoLayers();
};

// Of few tokens: the tensor cores, from kPrefillTokens on, add in another order.
TEST_F(CudaHostPass, PrefillAndDecodeAgreeBitForBit) {
  const std::vector<int32_t> ids = {72, 105, 33};
  Forward<float> whole = MakePass(model_, Contract::q16), pieces = MakePass(model_, Contract::q16);
  whole.Run(ids, nullptr);
  for (size_t i = 0; i < ids.size(); ++i) pieces.Run(std::span(ids).subspan(i, 1), nullptr);
  EXPECT_TRUE(std::equal(whole.logits().begin(), whole.logits().end(), pieces.logits().begin()));
}

// Prefill, then two steps by one graph, then a step of two tokens, then the graph again, then many
// tokens at once: every tap and the logits have the bits that rows give which copy everything in
// and out.
TEST_F(CudaHostPass, EveryTapHasTheBitsOfRowsThatCopy) {
  for (const Contract contract : kContracts) {
    Forward<float> device = MakePass(model_, contract), copies = MakePass(model_, contract, false);
    BitRecorder<float> ours, theirs;
    for (const std::vector<int32_t>& ids : {std::vector<int32_t>{72, 105, 33},
                                            {7},
                                            {200},
                                            {5, 6},
                                            {9},
                                            std::vector<int32_t>(9, 14)}) {
      device.Run(ids, &ours);
      copies.Run(ids, &theirs);
      EXPECT_TRUE(std::ranges::equal(device.logits(), copies.logits()));
    }
    ASSERT_EQ(ours.values.size(), theirs.values.size());
    EXPECT_GE(ours.values.size(), 8 * (model_.config.layers * 17 + 3));
    size_t differ = 0;
    for (const auto& [key, values] : theirs.values) differ += ours.values[key] != values;
    EXPECT_EQ(differ, 0u) << NameOf(contract);
  }
}

// Where nobody looks between them, steps share launches (kernels/joined_steps.cuh): same bits, and
// a graph of 10 kernels a layer where the steps are 18.
TEST_F(CudaHostPass, StepsThatShareALaunchHaveTheBitsOfSteps) {
  for (const Contract contract : kContracts) {
    SCOPED_TRACE(NameOf(contract));
    Forward<float> device = MakePass(model_, contract), copies = MakePass(model_, contract, false);
    for (const std::vector<int32_t>& ids : {std::vector<int32_t>{72, 105, 33},
                                            {7},
                                            {200},
                                            {5, 6},
                                            {9},
                                            std::vector<int32_t>(9, 14),
                                            {3}}) {
      device.Run(ids, nullptr);
      copies.Run(ids, nullptr);
      EXPECT_TRUE(std::ranges::equal(device.logits(), copies.logits()));
    }
    const size_t before = GridsRun();
    device.Run(std::vector<int32_t>{8}, nullptr);
    const size_t kernels = GridsRun() - before, rounded = contract != Contract::f32;
    EXPECT_EQ(kernels, model_.config.layers * (8 + 2 * rounded) + 3);
  }
}

// Taps of a graph belong to the token of the replay and to whoever looks now.
TEST_F(CudaHostPass, AGraphReturnsNoStaleTaps) {
  class One : public BitRecorder<float> {
   public:
    explicit One(Tap tap) : tap_(tap) {}
    bool Wants(Tap tap, int) const override { return tap == tap_; }

   private:
    Tap tap_;
  };
  Forward<float> device = MakePass(model_, Contract::f32);
  Forward<float> ref(model_, RowSet(Backend::ref, Contract::f32), KvType::f32, 1, 8);
  BitRecorder<float> expected;
  One silu(Tap::ffn_silu), rope(Tap::k_rope);
  One* const sinks[] = {&silu, &silu, &rope, nullptr, &silu};
  const int32_t ids[] = {72, 105, 33, 200, 14};
  for (size_t i = 0; i < 5; ++i) {
    device.Run({&ids[i], 1}, sinks[i]);
    ref.Run({&ids[i], 1}, &expected);
    for (size_t c = 0; c < model_.config.vocab; ++c)
      ASSERT_NEAR(device.logits()[c], ref.logits()[c], 1e-4) << i << " " << c;
  }
  EXPECT_EQ(silu.values.size(), 3 * model_.config.layers);
  EXPECT_EQ(rope.values.size(), model_.config.layers);
  for (const One* sink : {&silu, &rope})
    for (const auto& [key, values] : sink->values)
      for (size_t c = 0; c < values.size(); ++c)
        ASSERT_NEAR(values[c], expected.values[key].at(c), 1e-4) << std::get<2>(key);
}

// Keeps the sums of every tap, token by token, with or without the values beside them.
class SumsRecorder : public BitRecorder<float> {
 public:
  explicit SumsRecorder(bool with_values) : with_values_(with_values) {}
  bool WantsValues(Tap, int) const override { return with_values_; }
  bool WantsSums(Tap, int) const override { return true; }
  void OnTap(const TapView<float>& v) override {
    EXPECT_EQ(v.values != nullptr, with_values_);
    if (with_values_) BitRecorder::OnTap(v);
    for (size_t t = 0; t < v.tokens; ++t) {
      const auto row = v.SumsOf(t);
      sums[{v.tap, v.layer, v.first_token + t}].assign(row.begin(), row.end());
      order.emplace_back(v.layer, v.tap, v.first_token + t);
    }
  }
  std::map<std::tuple<Tap, int, size_t>, std::vector<TapSums>> sums;
  std::vector<std::tuple<int, Tap, size_t>> order;

 private:
  bool with_values_;
};

void ExpectStatsOf(const std::vector<float>& values, const Stats& s) {
  const Stats cpu = ComputeStats(values.data(), values.size());
  EXPECT_EQ(s.n, cpu.n);
  EXPECT_EQ(s.min, cpu.min);
  EXPECT_EQ(s.max, cpu.max);
  EXPECT_EQ(s.zeros, cpu.zeros);
  EXPECT_EQ(s.argmax, cpu.argmax);
  EXPECT_NEAR(s.mean, cpu.mean, 1e-13 * cpu.rms);
  EXPECT_NEAR(s.std, cpu.std, 1e-13 * cpu.rms);
  EXPECT_NEAR(s.l2, cpu.l2, 1e-13 * cpu.l2);
}

// Every sum is that of the values of its own token: of prefill, of the first run of a graph and of
// replays with another token and position, with another step between them.
TEST_F(CudaHostPass, SumsOfTapsBelongToTheirTokens) {
  Forward<float> passes[] = {MakePass(model_, Contract::q8), MakePass(model_, Contract::q8)};
  SumsRecorder with_values(true), alone(false);
  for (const std::vector<int32_t>& ids :
       {std::vector<int32_t>{72, 105, 33}, {7}, {200}, {5, 6}, {9}}) {
    passes[0].Run(ids, &with_values);
    passes[1].Run(ids, &alone);
    EXPECT_TRUE(std::ranges::equal(passes[0].logits(), passes[1].logits()));
  }
  EXPECT_EQ(with_values.order, alone.order);
  EXPECT_EQ(alone.sums.size(), 8 * (model_.config.layers * 20 + 3));
  ASSERT_EQ(with_values.sums.size(), alone.sums.size());
  for (const auto& [key, sums] : with_values.sums) {
    SCOPED_TRACE(TapPath(std::get<0>(key), std::get<1>(key)) + " of token " +
                 std::to_string(std::get<2>(key)));
    EXPECT_TRUE(std::ranges::equal(alone.sums[key], sums));
    ExpectStatsOf(with_values.values.at(key), StatsOf(sums));
  }
}

// A graph is made for what is wanted of a tap: sums, then values, then sums again.
TEST_F(CudaHostPass, AGraphIsMadeForWhatIsWantedOfItsTaps) {
  Forward<float> device = MakePass(model_, Contract::f32),
                 copies = MakePass(model_, Contract::f32, false);
  SumsRecorder sums(false);
  BitRecorder<float> values, expected;
  TapSink<float>* const sinks[] = {&sums, &sums, &values, &sums, nullptr, &sums};
  const int32_t ids[] = {72, 105, 33, 200, 14, 8};
  for (size_t i = 0; i < 6; ++i) {
    device.Run({&ids[i], 1}, sinks[i]);
    copies.Run({&ids[i], 1}, &expected);
  }
  EXPECT_EQ(values.values.size() * 4, sums.sums.size());
  for (const auto& [key, row] : values.values) EXPECT_EQ(row, expected.values.at(key));
  for (const auto& [key, row] : sums.sums) ExpectStatsOf(expected.values.at(key), StatsOf(row));
}

// What a trace records is the same, in the same order, whether the statistics come from the device
// or from values that were copied.
TEST_F(CudaHostPass, ATraceHasTheStatisticsOfTheValues) {
  Trace ours, theirs;
  TraceRecorder<float> recorder(ours, TapFilter({}, 2), 3, 1),
      other(theirs, TapFilter({}, 2), 3, 1);
  Forward<float> device = MakePass(model_, Contract::q8),
                 copies = MakePass(model_, Contract::q8, false);
  for (const std::vector<int32_t>& ids : {std::vector<int32_t>{72, 105, 33}, {7}, {200}}) {
    device.Run(ids, &recorder);
    copies.Run(ids, &other);
  }
  ASSERT_EQ(ours.taps.size(), theirs.taps.size());
  for (size_t i = 0; i < ours.taps.size(); ++i) {
    const TapRecord &a = ours.taps[i], &b = theirs.taps[i];
    ASSERT_EQ(std::tie(a.tap, a.layer, a.token), std::tie(b.tap, b.layer, b.token));
    EXPECT_EQ(a.stats.argmax, b.stats.argmax);
    EXPECT_NEAR(a.stats.mean, b.stats.mean, 1e-13 * b.stats.rms);
    EXPECT_NEAR(a.stats.std, b.stats.std, 1e-13 * b.stats.rms);
  }
  ASSERT_EQ(ours.tops.size(), theirs.tops.size());
  for (size_t i = 0; i < ours.tops.size(); ++i) EXPECT_EQ(ours.tops[i].p, theirs.tops[i].p);
}

// On the tensor cores a token has the same bits whatever comes behind it.
TEST_F(CudaHostPass, LongPromptsAgreeOnWhatTheyShare) {
  std::vector<int32_t> ids(12, 7);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] += static_cast<int32_t>(i);
  for (const Contract contract : {Contract::q8, Contract::q16}) {
    BitRecorder<float> all, first;
    MakePass(model_, contract).Run(ids, &all);
    MakePass(model_, contract).Run(std::span(ids).first(8), &first);
    size_t same = 0, differ = 0;
    for (const auto& [key, values] : first.values) {
      const auto longer = all.values.find(key);
      if (longer != all.values.end()) ++(longer->second == values ? same : differ);
    }
    EXPECT_EQ(differ, 0u) << NameOf(contract);
    EXPECT_GE(same, 8 * model_.config.layers * 17);
  }
}

TEST_F(CudaHostPass, WeightsArePlacedOnceForSeveralPasses) {
  const size_t before = DeviceMemoryInUse();
  {
    const Forward<float> first = MakePass(model_, Contract::q8);
    const size_t one = DeviceMemoryInUse() - before;
    const Forward<float> second = MakePass(model_, Contract::q8);
    const size_t another = DeviceMemoryInUse() - before - one;
    EXPECT_GE(one, another + model_.BytesPerToken());
  }
  EXPECT_EQ(DeviceMemoryInUse(), before);
}

TEST(CudaHost, AHeadWiderThanTheKernelsCannotRunHere) {
  GqaAttentionArgs<float> a = {};
  a.tokens = a.heads = a.group = 1;
  a.head_dim = 320;
  try {
    LaunchGqaAttention(a, nullptr);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), kCannotRun);
    EXPECT_STREQ(e.what(),
                 "gqa_attention on a device: head_dim is 320, and at most 256 is possible");
  }
}

TEST_F(CudaHostPass, WithoutRoomTheErrorSaysWhatIsNeededAndFree) {
  SetDeviceMemory(1 << 20);
  std::string why;
  try {
    MakePass(model_, Contract::f32);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), kCannotRun);
    why = e.what();
  }
  SetDeviceMemory(size_t{1} << 40);
  EXPECT_NE(why.find("this pass needs "), std::string::npos) << why;
  EXPECT_NE(why.find(" MiB, and 1 of 1 MiB are free"), std::string::npos) << why;
}

}  // namespace
}  // namespace lab::LAB_CUDA_NAMESPACE
