// Weights repacked by eight rows: what `lab check`, which judges the values, does not see.
#include "kernels/rows8.h"

#include <gtest/gtest.h>

#include <cstring>

#include "lab/random.h"
#include "lab/registry.h"
#include "lab/simd_target.h"
#include "model/repack.h"

namespace lab {
namespace {

// Three whole bundles (a token alone may go over two at once), a group of another, three rows.
constexpr size_t kRows = 8 * (3 * kBundleGroups + 1) + 3, kCols = 512, kTokens = 13;

std::vector<uint8_t> RandomBlocks(BlockType type) {
  Random random(7);
  std::vector<uint8_t> bytes(kRows * kCols / 256 * InfoOf(type).bytes);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(random.Below(256));
  // Scales of moderate size instead of Inf and NaN.
  for (size_t at = 0; at < bytes.size(); at += InfoOf(type).bytes) {
    const uint16_t d = static_cast<uint16_t>(0x2000 + random.Below(0x400));
    if (type == BlockType::Q4_K) {
      std::memcpy(&bytes[at], &d, 2);
      std::memcpy(&bytes[at + 2], &d, 2);
    } else {
      std::memcpy(&bytes[at + 208], &d, 2);
    }
  }
  return bytes;
}

class Rows8 : public testing::TestWithParam<std::tuple<BlockType, Contract>> {
 protected:
  Rows8() : bytes_(RandomBlocks(std::get<0>(GetParam()))) {
    w_ = {std::get<0>(GetParam()), bytes_.data(), kRows, kCols};
    repacked_ = RepackedRows8(w_);
    w_.rows8 = repacked_.data();
    Random random(8);
    for (float& v : x_) v = static_cast<float>(random.Below(2001)) - 1000;
  }
  std::vector<float> Run(size_t first, size_t tokens, int threads) {
    const Contract contract = std::get<1>(GetParam());
    QuantizedBuffer integers;
    RunRow(*FindRow(Op::quantize, contract, Backend::ref),
           integers.Prepare(&x_[first * kCols], tokens, kCols, 256, contract == Contract::q16), 1);
    std::vector<float> y(tokens * kRows);
    RunRow(*FindRow(Op::matvec, contract, Backend::hwy),
           MatvecArgs<float>{w_, nullptr, &x_[first * kCols], integers.view(), y.data(), nullptr,
                             tokens, kRows},
           threads);
    return y;
  }
  std::vector<uint8_t> bytes_, repacked_;
  WeightView w_;
  std::vector<float> x_ = std::vector<float>(kTokens * kCols);
};

TEST_P(Rows8, SameBitsInEveryTileOfTokensAndOnEveryNumberOfThreads) {
  for (const SimdTarget& target : SimdTargets()) {
    if (!target.runs_here) continue;
    UseSimdTarget(target.name);
    const std::vector<float> together = Run(0, kTokens, 1);
    for (const int threads : {2, 3, 7}) EXPECT_EQ(Run(0, kTokens, threads), together);
    for (size_t t = 0; t < kTokens; ++t) {
      const std::vector<float> alone = Run(t, 1, 1);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), &together[t * kRows]))
          << target.name << " token " << t;
    }
  }
  UseSimdTarget("");
}

TEST_P(Rows8, ReadsTheRepackedFormAndTheRowsLeftOverAsTheyAre) {
  const std::vector<float> before = Run(0, 1, 1);
  std::fill(bytes_.begin(), bytes_.begin() + static_cast<ptrdiff_t>(repacked_.size()), 0);
  EXPECT_EQ(Run(0, 1, 1), before);
  std::fill(repacked_.begin(), repacked_.end(), 0);
  const std::vector<float> zeros = Run(0, 1, 1);
  for (size_t r = 0; r < kRows; ++r) EXPECT_EQ(zeros[r], r < kRows / 8 * 8 ? 0 : before[r]);
}

INSTANTIATE_TEST_SUITE_P(Types, Rows8,
                         testing::Combine(testing::Values(BlockType::Q4_K, BlockType::Q6_K),
                                          testing::Values(Contract::q8, Contract::q16)));

TEST(Repack, GivesEveryMatrixItsFormOnAnyNumberOfThreads) {
  Qwen2 one = OpenModel("tiny"), three = OpenModel("tiny");
  Repack(one, 1);
  Repack(three, 3);
  size_t repacked = 0;
  for (size_t l = 0; l < one.layers.size(); ++l) {
    for (WeightView Qwen2Layer::*m :
         {&Qwen2Layer::attn_q, &Qwen2Layer::attn_v, &Qwen2Layer::ffn_up, &Qwen2Layer::ffn_down}) {
      const WeightView &a = one.layers[l].*m, &b = three.layers[l].*m;
      ASSERT_EQ(a.rows8 != nullptr, HasRows8(a.type));
      if (!a.rows8) continue;
      const std::vector<uint8_t> expected = RepackedRows8(a);
      EXPECT_EQ(std::memcmp(a.rows8, expected.data(), expected.size()), 0);
      EXPECT_EQ(std::memcmp(b.rows8, expected.data(), expected.size()), 0);
      ++repacked;
    }
  }
  EXPECT_GT(repacked, 0u);
}

}  // namespace
}  // namespace lab
