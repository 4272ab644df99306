// The contracts q8 and q16: the quantiser itself, half floats, and what a whole pass under them
// keeps.
#include <gtest/gtest.h>

#include <bit>
#include <cfenv>
#include <cmath>
#include <cstring>

#include "kernels/half.h"
#include "lab/registry.h"
#include "model/forward.h"
#include "reference/dequant_ref.h"
#include "tests/golden.h"

namespace lab {
namespace {

struct Quantized {
  QuantizedBuffer buffer;
  Quantized(const std::vector<float>& x, size_t block, Contract contract) {
    const auto args = buffer.Prepare(x.data(), 1, x.size(), block, contract == Contract::q16);
    RunRow(*FindRow(Op::quantize, contract, Backend::ref), args, 1);
  }
  int32_t q(size_t i) const { return buffer.view().Integer(i); }
  float scale(size_t block = 0) const { return buffer.view().scale[block]; }
};

TEST(Quantize, TiesGoToEvenAndTheLargestReachesTheEnd) {
  std::vector<float> x(256, 0.0f);
  x[0] = -127, x[1] = 0.5f, x[2] = 1.5f, x[3] = 2.5f, x[4] = -0.5f, x[5] = 126.4f;
  const Quantized q8(x, 256, Contract::q8);
  EXPECT_EQ(q8.scale(), 1.0f);
  const int expected[] = {-127, 0, 2, 2, 0, 126};
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(q8.q(i), expected[i]) << i;
  EXPECT_EQ(q8.buffer.view().sums[0], -127 + 0 + 2 + 2 + 0 + 126);

  const Quantized q16(x, 256, Contract::q16);
  EXPECT_EQ(q16.q(0), -32512);
  EXPECT_EQ(q16.q(1), 128);
  EXPECT_EQ(q16.q(5), std::lrint(126.4f * (32512.0f / 127.0f)));
}

TEST(Quantize, PlanesOfEverySixteenBitValueJoinAgain) {
  for (int32_t q = -32512; q <= 32512; ++q) {
    std::vector<float> x(32, 0.0f);
    x[0] = 32512, x[1] = static_cast<float>(q);
    ASSERT_EQ(Quantized(x, 32, Contract::q16).q(1), q);
  }
}

TEST(Quantize, ErrorIsHalfAStep) {
  std::vector<float> x(512);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = std::sin(static_cast<float>(i) * 0.7f) * (i < 256 ? 1.0f : 300.0f);
  for (const auto& [contract, levels] :
       {std::pair(Contract::q8, 127.0), std::pair(Contract::q16, 32512.0)}) {
    const Quantized q(x, 256, contract);
    for (size_t i = 0; i < x.size(); ++i) {
      const double step = q.scale(i / 256);
      EXPECT_LE(std::abs(x[i] - step * q.q(i)), step * (0.5 + 1e-6 * levels)) << i;
    }
  }
}

TEST(Quantize, BlocksWithoutAScale) {
  for (const Contract contract : {Contract::q8, Contract::q16}) {
    std::vector<float> x(32, 0.0f);
    EXPECT_EQ(Quantized(x, 32, contract).scale(), 0.0f);
    x[3] = 1e-40f;  // L / amax overflows
    EXPECT_EQ(Quantized(x, 32, contract).scale(), 0.0f);
    EXPECT_EQ(Quantized(x, 32, contract).q(3), 0);
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      x[3] = bad;
      EXPECT_TRUE(std::isnan(Quantized(x, 32, contract).scale())) << bad;
    }
  }
}

TEST(Half, RoundsLikeTheCompiler) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float value = HalfToFloat(static_cast<uint16_t>(h));
    if (std::isnan(value)) continue;
    ASSERT_EQ(FloatToHalf(value), h);
  }
#if defined(__x86_64__) && defined(__FLT16_MAX__)  // g++ 12 knows _Float16 in C++ there alone
  uint32_t bits = 1;
  for (int i = 0; i < 2'000'000; ++i) {
    bits = bits * 1664525 + 1013904223;
    // Exponents around the half range, so that normal, subnormal and overflowing values all occur.
    const float x = std::bit_cast<float>((bits & 0x807fffff) | (0x60 + bits / 7 % 0x32) << 23);
    ASSERT_EQ(FloatToHalf(x), std::bit_cast<uint16_t>(static_cast<_Float16>(x))) << x;
  }
#endif
  EXPECT_EQ(FloatToHalf(65519.996f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(NAN))));
}

// What the oracle of a contract gives for the tiny model, run in pieces of `piece` tokens.
std::vector<double> TinyLogits(Contract contract, KvType kv, size_t piece) {
  static const Qwen2 model = OpenModel("tiny");
  const std::vector<int32_t> ids = {87, 104, 97, 116, 32, 105, 300, 50};
  Forward<double> forward(model, RowSet(Backend::oracle, contract), kv, 2, ids.size());
  for (size_t i = 0; i < ids.size(); i += piece)
    forward.Run(std::span(ids).subspan(i, std::min(piece, ids.size() - i)), nullptr);
  return {forward.logits().begin(), forward.logits().end()};
}

double RelativeSquaredError(const std::vector<double>& a, const std::vector<double>& b) {
  double error = 0, energy = 0;
  for (size_t i = 0; i < a.size(); ++i)
    error += (a[i] - b[i]) * (a[i] - b[i]), energy += b[i] * b[i];
  return error / energy;
}

TEST(Contracts, PrefillEqualsDecode) {
  for (const Contract contract : {Contract::q8, Contract::q16})
    for (const KvType kv : {KvType::f32, KvType::f16})
      EXPECT_EQ(TinyLogits(contract, kv, 8), TinyLogits(contract, kv, 1));
}

TEST(Contracts, MethodErrorHasItsSize) {
  const auto exact = TinyLogits(Contract::f32, KvType::f32, 8);
  const double q8 = RelativeSquaredError(TinyLogits(Contract::q8, KvType::f32, 8), exact);
  const double q16 = RelativeSquaredError(TinyLogits(Contract::q16, KvType::f32, 8), exact);
  const double half_kv = RelativeSquaredError(TinyLogits(Contract::f32, KvType::f16, 8), exact);
  EXPECT_GT(q8, 1e-6);
  EXPECT_LT(q8, 1e-2);
  EXPECT_GT(q16, 1e-12);
  EXPECT_LT(q16, q8 / 1000);
  EXPECT_GT(half_kv, 0);
  EXPECT_LT(half_kv, q8);
}

}  // namespace
}  // namespace lab
