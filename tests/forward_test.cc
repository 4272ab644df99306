// The forward pass on the built-in model: against independent golden data, and against itself.
#include "model/forward.h"

#include <gtest/gtest.h>

#include "lab/device.h"
#include "lab/error.h"
#include "tests/golden.h"

namespace lab {
namespace {

const Qwen2& Tiny() {
  static const Qwen2 model = OpenModel("tiny");
  return model;
}

std::vector<int32_t> SomeIds(size_t n) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < n; ++i)
    ids.push_back(static_cast<int32_t>((i * i * 7 + 3 * i + 11) % Tiny().config.vocab));
  return ids;
}

template <class T>
Forward<T> MakeForward(size_t capacity, int threads = 1,
                       Backend backend = sizeof(T) == 8 ? Backend::oracle : Backend::ref) {
  return Forward<T>(Tiny(), RowSet(backend, Contract::f32), KvType::f32, threads, capacity);
}

template <class T>
BitRecorder<T> RecordInPieces(const std::vector<int32_t>& ids, size_t piece, int threads) {
  BitRecorder<T> bits;
  Forward<T> forward = MakeForward<T>(ids.size(), threads);
  for (size_t i = 0; i < ids.size(); i += piece)
    forward.Run(std::span(ids).subspan(i, std::min(piece, ids.size() - i)), &bits);
  return bits;
}

template <class T>
class ForwardTest : public testing::Test {};
using Scalars = testing::Types<double, float>;
TYPED_TEST_SUITE(ForwardTest, Scalars);

TYPED_TEST(ForwardTest, PrefillEqualsDecodeInEveryTap) {
  const auto ids = SomeIds(11);
  const auto prefill = RecordInPieces<TypeParam>(ids, ids.size(), 1);
  EXPECT_EQ(prefill.values.size(), (3 + 20 * Tiny().config.layers) * ids.size());
  EXPECT_TRUE(prefill.values == RecordInPieces<TypeParam>(ids, 1, 1).values);
  EXPECT_TRUE(prefill.values == RecordInPieces<TypeParam>(ids, 4, 1).values);
}

TYPED_TEST(ForwardTest, ThreadsChangeNoBit) {
  const auto ids = SomeIds(5);
  const auto one = RecordInPieces<TypeParam>(ids, ids.size(), 1);
  for (const int threads : {2, 3, 7, 64})
    EXPECT_TRUE(one.values == RecordInPieces<TypeParam>(ids, ids.size(), threads).values);
}

TYPED_TEST(ForwardTest, ASinkChangesNoBitOfTheLogits) {
  const auto ids = SomeIds(6);
  BitRecorder<TypeParam> bits;
  auto watched = MakeForward<TypeParam>(ids.size()), alone = MakeForward<TypeParam>(ids.size());
  watched.Run(ids, &bits);
  alone.Run(ids, nullptr);
  EXPECT_TRUE(std::equal(alone.logits().begin(), alone.logits().end(), watched.logits().begin()));
}

TYPED_TEST(ForwardTest, TapsHoldTheLawsOfTheModel) {
  const auto ids = SomeIds(4);
  auto bits = RecordInPieces<TypeParam>(ids, ids.size(), 1);
  for (int layer = 0; layer < static_cast<int>(Tiny().config.layers); ++layer) {
    for (size_t t = 0; t < ids.size(); ++t) {
      const auto at = [&](Tap tap) -> const std::vector<TypeParam>& {
        return bits.values.at({tap, layer, t});
      };
      const auto& in = layer == 0 ? bits.values.at({Tap::embedding, kNoLayer, t})
                                  : bits.values.at({Tap::layer_out, layer - 1, t});
      for (size_t i = 0; i < in.size(); ++i) {
        ASSERT_EQ(at(Tap::attn_residual)[i], in[i] + at(Tap::attn_out)[i]);
        ASSERT_EQ(at(Tap::layer_out)[i], at(Tap::attn_residual)[i] + at(Tap::ffn_out)[i]);
      }
      for (size_t i = 0; i < at(Tap::ffn_up).size(); ++i)
        ASSERT_EQ(at(Tap::ffn_swiglu)[i], at(Tap::ffn_silu)[i] * at(Tap::ffn_up)[i]);
      for (size_t i = 0; i < at(Tap::q_proj).size(); ++i)
        ASSERT_EQ(at(Tap::q_bias)[i],
                  at(Tap::q_proj)[i] + static_cast<TypeParam>(Tiny().layers[layer].q_bias[i]));
    }
  }
}

TEST(ForwardGolden, OracleMatchesAnIndependentPass) {
  const auto golden = ReadJsonLines(GoldenPath("tiny.jsonl"));
  const Trace trace = RecordRun<double>(Tiny(), Backend::oracle, golden[0]["tokens"], 2);
  ExpectMatchesGolden(trace, golden, 1e-8, 1e-8);
}

TEST(ForwardGolden, YardstickIsCloseToIt) {
  const auto golden = ReadJsonLines(GoldenPath("tiny.jsonl"));
  const Trace trace = RecordRun<float>(Tiny(), Backend::ref, golden[0]["tokens"], 2);
  ExpectMatchesGolden(trace, golden, 2e-5, 1e-4);
}

// More tokens than one batch holds: the pieces must join up.
TEST(ForwardBatches, ALongPromptEqualsItsPieces) {
  const auto ids = SomeIds(300);
  auto whole = MakeForward<float>(ids.size(), 2, Backend::hwy),
       pieces = MakeForward<float>(ids.size(), 2, Backend::hwy);
  whole.Run(ids, nullptr);
  pieces.Run(std::span(ids).first(123), nullptr);
  pieces.Run(std::span(ids).subspan(123), nullptr);
  EXPECT_EQ(whole.position(), ids.size());
  EXPECT_TRUE(std::equal(whole.logits().begin(), whole.logits().end(), pieces.logits().begin()));
}

TEST(ForwardRows, ABackendThatCannotRunSaysWhy) {
  if (Cuda().problem.empty()) GTEST_SKIP() << "CUDA rows run here";
  try {
    RowSet(Backend::cuda, Contract::f32);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), kCannotRun);
    EXPECT_EQ(error.what(), "--backend cuda: " + Cuda().problem);
  }
}

TEST(Rows, EveryRowHasItsOracleAndYardstick) {
  for (const Row& row : Rows()) {
    EXPECT_NE(FindRow(row.op, row.contract, Backend::oracle), nullptr) << NameOf(row.op);
    EXPECT_NE(FindRow(row.op, row.contract, Backend::ref), nullptr) << NameOf(row.op);
  }
}

TEST(Rows, TheSimdBackendIsComplete) {
  for (const Contract contract : {Contract::f32, Contract::q8, Contract::q16})
    EXPECT_TRUE(RowSet::Complete(Backend::hwy, contract)) << NameOf(contract);
}

}  // namespace
}  // namespace lab
