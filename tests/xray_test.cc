// lab bisect --xray: the field that a row reads wrongly.
#include "lab/xray.h"

#include <gtest/gtest.h>

#include <cstring>

#include "lab/capture.h"
#include "lab/device.h"
#include "lab/edge_blocks.h"
#include "model/synth.h"

namespace lab {
namespace {

const Qwen2& Tiny() {
  static const Qwen2 kTiny = OpenModel("tiny");
  return kTiny;
}

// Of layer 3, whose matrices are Q4_K, or of layer 0, which has Q6_K as well.
Case Step(const std::string& name, int layer = 3) {
  for (const Case& c : WeightCases(Tiny(), layer))
    if (c.name.substr(4) == name) return c;
  return {};
}

// 127 in one column is exact under every contract.
TEST(Xray, EveryRowReadsItsWeights) {
  for (const Row& row : Rows()) {
    // Through the SIMT layer a unit input for every column takes minutes.
    if (row.backend == Backend::oracle || row.backend == Backend::cuda_host) continue;
    if (!WhyNotHere(row).empty()) continue;
    std::vector<Case> cases = WeightCases(Tiny(), 3);
    cases.push_back(Step("down_proj", 0));
    for (const Case& c : cases) {
      if (c.op != row.op) continue;
      const auto xrays = XrayStep(c, {&row}, 2);
      EXPECT_EQ(xrays.size(), c.w_up.data ? 2u : 1u);
      for (const Xray& x : xrays)
        EXPECT_EQ(x.wrong, 0u) << x.matrix << " " << row.function << " " << NameOf(row.contract);
    }
  }
}

struct Slip {
  const char *mutant, *step, *field, *what;
};

TEST(Xray, NamesTheFieldThatIsWrong) {
  const Slip kSlips[] = {
      {"min_dropped", "q_proj", "dmin", "left out"},
      {"min_added", "q_proj", "dmin", "with the wrong sign"},
      {"d_dmin_swapped", "q_proj", "d", "d and dmin exchanged"},
      {"scale_index_off_by_one", "q_proj", "scale", "that of sub-block"},
      {"min_index_off_by_one", "q_proj", "min", "that of sub-block"},
      {"nibble_order", "q_proj", "q", "those of sub-block"},
      {"second_half_repeats", "q_proj", "q", "those of sub-block"},
      {"scale_one_ulp", "q_proj", "d", "read as 1.00"},
      {"one_sub_block_zero", "q_proj", "sub-block", "left out"},
      {"last_block_dropped", "down_proj", "block", "left out"},
      {"transposed", "down_proj", "transposed", "block [row, block]"},
      {"rows_rotated", "q_proj", "rows", "row r reads row r + 1"},
      {"q6k_scale_per_32", "down_proj", "scale", ""},
      {"q6k_high_bits_lost", "down_proj", "q", "instead of"},
      {"up_from_gate", "gate_up", "matrix", "the other matrix"},
      {"bf16_weights", "q_proj", "weights", "instead of"},
  };
  for (const Slip& slip : kSlips) {
    SCOPED_TRACE(slip.mutant);
    const Case c = Step(slip.step, std::string_view(slip.mutant).starts_with("q6k") ? 0 : 3);
    const Row* row = FindRow(c.op, Contract::f32, Backend::hwy);
    const auto xrays = XrayStep(c, {row, &FindMutant(slip.mutant, "")}, 2);
    const Xray& x = xrays.back();
    ASSERT_FALSE(x.findings.empty());
    EXPECT_GT(x.wrong, 0u);
    EXPECT_EQ(x.findings[0].field, slip.field) << x.findings[0].what;
    EXPECT_NE(x.findings[0].what.find(slip.what), std::string::npos) << x.findings[0].what;
  }
}

// One sub-block of one row: named to the place, nothing else.
TEST(Xray, NamesThePlace) {
  const Case c = Step("q_proj");
  const Row* row = FindRow(Op::matvec, Contract::q8, Backend::hwy);
  const auto xrays = XrayStep(c, {row, &FindMutant("one_sub_block_zero", "")}, 1);
  ASSERT_EQ(xrays.size(), 1u);
  for (const XrayFinding& f : xrays[0].findings) {
    EXPECT_EQ(f.first_row, c.w.rows / 2);
    EXPECT_EQ(f.last_row, c.w.rows / 2);
    EXPECT_EQ(f.rows, 1u);
    EXPECT_EQ(f.parts, 1u);
    EXPECT_EQ(f.where, "row 128, super-block 0, sub-block 5");
  }
}

// A square matrix read with rows and columns exchanged, element by element.
TEST(Xray, NamesATransposedMatrix) {
  constexpr size_t kN = 64;
  std::vector<float> w(kN * kN), t(kN * kN);
  for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(i) - 1000;
  for (size_t r = 0; r < kN; ++r)
    for (size_t c = 0; c < kN; ++c) t[r * kN + c] = w[c * kN + r];
  Case right;
  right.op = Op::matvec;
  right.name = "square";
  right.w = {BlockType::F32, reinterpret_cast<const uint8_t*>(w.data()), kN, kN};
  const WeightView wrong = {BlockType::F32, reinterpret_cast<const uint8_t*>(t.data()), kN, kN};
  Case other = right;
  other.w = wrong;
  const auto measured =
      MeasureWeights(other, {FindRow(Op::matvec, Contract::f32, Backend::hwy)}, 1);
  EXPECT_EQ(measured[0].values, t);
  const Xray x = CompareWeights(right, "y", measured[0].values);
  ASSERT_EQ(x.findings.size(), 1u);
  EXPECT_EQ(x.findings[0].field, "transposed");
}

// Where weights are nearly their minimum, the rounding of the values hides the scale: it is not
// called wrong for that.
TEST(Xray, AScaleThatDrownsInTheMinimumIsNotBlamed) {
  Random random(1);
  std::vector<uint8_t> right = MakeBlocks(BlockType::Q4_K, Fill::ordinary, 1, 256, random);
  BlockQ4_K block;
  std::memcpy(&block, right.data(), sizeof block);
  block.d = 0x1555;     // about 2^-10, with digits that a minimum of 62 rounds away
  block.dmin = 0x3c00;  // 1
  std::fill_n(block.scales, sizeof block.scales, uint8_t{1});
  block.scales[4 + 3] = 63;  // the minimum of sub-block 3
  std::memcpy(right.data(), &block, sizeof block);
  block.scales[4 + 3] = 62;
  std::vector<uint8_t> wrong(right.size());
  std::memcpy(wrong.data(), &block, sizeof block);

  Case c;
  c.op = Op::matvec;
  c.name = "row";
  c.w = {BlockType::Q4_K, wrong.data(), 1, 256};
  const auto measured = MeasureWeights(c, {FindRow(Op::matvec, Contract::f32, Backend::ref)}, 1);
  c.w.data = right.data();
  const Xray x = CompareWeights(c, "y", measured[0].values);
  ASSERT_EQ(x.findings.size(), 1u) << x.findings.back().field << " " << x.findings.back().what;
  EXPECT_EQ(x.findings[0].field, "min");
  EXPECT_EQ(x.findings[0].what, "62 instead of 63");
}

}  // namespace
}  // namespace lab
