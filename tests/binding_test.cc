// Where the buffers of a case lie, as a row sees them.
#include "lab/binding.h"

#include <gtest/gtest.h>

#include <cmath>

#include "reference/dequant_ref.h"

namespace lab {
namespace {

template <class T>
size_t PastABoundary(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % 64;
}

// A row that computes nothing and keeps the arguments it was called with.
template <class Args>
struct Spy {
  static inline Args seen;
  static Row RowOf(Op op, Contract contract) {
    return {op,    contract,      Backend::hwy,
            "Spy", &typeid(Args), [](const void* args) { seen = *static_cast<const Args*>(args); }};
  }
};

Case MatvecCase(const std::vector<uint8_t>& weights, BlockType type) {
  Case c;
  c.op = Op::matvec;
  c.tokens = 2;
  c.w = {type, weights.data(), 3, 256};
  c.x.assign(512, 1.0f);
  c.vector.assign(3, 2.0f);
  return c;
}

TEST(Binding, MatvecBuffersAreUnalignedAndPadded) {
  const std::vector<uint8_t> weights(3 * sizeof(BlockQ4_K), 7);
  const Case c = MatvecCase(weights, BlockType::Q4_K);
  Binding<float> binding(c, Contract::q16, false);
  const Row spy = Spy<MatvecArgs<float>>::RowOf(Op::matvec, Contract::q16);
  binding.Run({&spy}, 1);
  const MatvecArgs<float>& a = Spy<MatvecArgs<float>>::seen;
  EXPECT_EQ(PastABoundary(a.w.data), 2u);
  EXPECT_EQ(PastABoundary(a.x), 4u);
  EXPECT_EQ(PastABoundary(a.bias), 4u);
  EXPECT_EQ(PastABoundary(a.y), 4u);
  EXPECT_EQ(PastABoundary(a.xq.hi), 1u);
  EXPECT_EQ(PastABoundary(a.xq.lo), 1u);
  EXPECT_EQ(PastABoundary(a.xq.scale), 4u);
  EXPECT_EQ(PastABoundary(a.xq.sums), 4u);
  for (size_t i = 1; i <= 256; ++i) {
    EXPECT_EQ(*(a.w.data - i), 0xff);
    EXPECT_EQ(a.w.data[weights.size() - 1 + i], 0xff);
    EXPECT_TRUE(std::isnan(*(a.x - i)));
    EXPECT_TRUE(std::isnan(a.x[511 + i]));
    EXPECT_TRUE(std::isnan(a.bias[2 + i]));
    EXPECT_TRUE(std::isnan(a.xq.scale[1 + i]));
  }
}

TEST(Binding, BuffersLieOnBoundariesWhereAsked) {
  const std::vector<uint8_t> weights(3 * sizeof(BlockQ4_K), 7);
  const Case c = MatvecCase(weights, BlockType::Q4_K);
  Binding<float> binding(c, Contract::q16, false, Alignment::on);
  const Row spy = Spy<MatvecArgs<float>>::RowOf(Op::matvec, Contract::q16);
  binding.Run({&spy}, 1);
  const MatvecArgs<float>& a = Spy<MatvecArgs<float>>::seen;
  for (const void* p : std::initializer_list<const void*>{
           a.w.data, a.x, a.bias, a.y, a.y_before_bias, a.xq.hi, a.xq.lo, a.xq.scale, a.xq.sums})
    EXPECT_EQ(PastABoundary(p), 0u);
  EXPECT_EQ(a.w.data[weights.size()], 0xff);
}

TEST(Binding, RowsRunOnTheSameArgumentsTimeAndAgain) {
  Case c;
  c.op = Op::quantize;
  c.tokens = 1;
  c.x.assign(32, 1.0f);
  Binding<float> binding(c, Contract::q8, false);
  const Row& row = *FindRow(Op::quantize, Contract::q8, Backend::ref);
  const void* seen[2];
  for (const void*& p : seen) {
    binding.Run({&row}, 1);
    p = binding.With([](const auto& args) { return static_cast<const void*>(&args); });
  }
  EXPECT_EQ(seen[0], seen[1]);
  ASSERT_EQ(binding.outputs().size(), 3u);
  EXPECT_EQ(binding.outputs()[0].data()[31], 127);
  EXPECT_TRUE(binding.guards_intact());
}

TEST(Binding, FloatWeightsKeepTheAlignmentOfFloats) {
  const std::vector<uint8_t> weights(3 * 256 * sizeof(float), 0);
  const Case c = MatvecCase(weights, BlockType::F32);
  Binding<float> binding(c, Contract::f32, false);
  const Row spy = Spy<MatvecArgs<float>>::RowOf(Op::matvec, Contract::f32);
  binding.Run({&spy}, 1);
  EXPECT_EQ(PastABoundary(Spy<MatvecArgs<float>>::seen.w.data), 4u);
}

TEST(Binding, HalfKeysAreUnalignedAndPadded) {
  Case c;
  c.op = Op::gqa_attention;
  c.tokens = c.heads = c.kv_heads = 1;
  c.head_dim = 64;
  c.x = c.k = c.v = std::vector<float>(64, 1.0f);
  Binding<float> binding(c, Contract::f32, true);
  const Row spy = Spy<GqaAttentionArgs<float>>::RowOf(Op::gqa_attention, Contract::f32);
  binding.Run({&spy}, 1);
  const GqaAttentionArgs<float>& a = Spy<GqaAttentionArgs<float>>::seen;
  EXPECT_EQ(PastABoundary(a.k16), 2u);
  EXPECT_EQ(PastABoundary(a.v16), 2u);
  for (size_t i = 0; i < 256; ++i) EXPECT_TRUE(std::isnan(HalfToFloat(a.v16[64 + i])));
}

TEST(Binding, GuardsTellOfEveryValueBesideAnOutput) {
  GuardedBuffer<float> buffer("y", 2, 3);
  EXPECT_EQ(PastABoundary(buffer.data()), 4u);
  for (const int at : {-64, -1, 6, 6 + 255}) {
    GuardedBuffer<float> spoilt = buffer;
    EXPECT_EQ(PastABoundary(spoilt.data()), 4u);
    EXPECT_TRUE(spoilt.guards_intact());
    spoilt.data()[at] = 0;
    EXPECT_FALSE(spoilt.guards_intact()) << at;
  }
}

}  // namespace
}  // namespace lab
