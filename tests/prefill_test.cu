// Many tokens at once, on the tensor cores of the SIMT layer: every shape of tile, full and ragged
// in rows, columns and tokens.
#include <gtest/gtest.h>

#include "kernels/prefill.cuh"
#include "lab/edge_blocks.h"
#include "lab/judge.h"
#include "lab/registry.h"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

struct Shape {
  size_t rows, cols, tokens;
};

void SetWeights(Case& c, WeightView Case::*slot, BlockType type, Shape shape, Random& random) {
  auto bytes = std::make_shared<std::vector<uint8_t>>(
      MakeBlocks(type, Fill::ordinary, shape.rows, shape.cols, random));
  c.*slot = {type, bytes->data(), shape.rows, shape.cols};
  c.owned.push_back(std::move(bytes));
}

Case MakeCase(Op op, BlockType type, Shape shape) {
  Random random(shape.rows + shape.tokens);
  Case c;
  c.op = op;
  c.tokens = shape.tokens;
  SetWeights(c, &Case::w, type, shape, random);
  if (op == Op::gate_up || op == Op::gate_up_swiglu)
    SetWeights(c, &Case::w_up, type, shape, random);
  for (size_t i = 0; i < shape.tokens * shape.cols; ++i) c.x.push_back(random.Signed());
  if (op == Op::matvec)
    for (size_t i = 0; i < shape.rows; ++i) c.vector.push_back(random.Signed());
  return c;
}

const Row* RowOnHost(Op op, Contract contract) {
  return FindRow(op, contract, Backend::cuda_host);
}

constexpr BlockType kTypes[] = {BlockType::Q4_K, BlockType::Q5_K, BlockType::Q6_K};
constexpr Contract kContracts[] = {Contract::q8, Contract::q16};

// Tokens that fill the small tile (16 under q8, 8 under q16) and the large one (64 and 32), and
// that leave part of one empty; a row, some of a half of a warp, and more rows than a block has.
constexpr Shape kShapes[] = {
    {1, 256, 8}, {37, 512, 9}, {16, 256, 16}, {65, 768, 70}, {130, 256, 64}};

TEST(Prefill, TilesFullAndRagged) {
  for (const Op op : {Op::matvec, Op::down_proj, Op::gate_up, Op::gate_up_swiglu})
    for (const BlockType type : kTypes)
      for (const Shape shape : kShapes) {
        const Case c = MakeCase(op, type, shape);
        for (const Contract contract : kContracts) {
          const Row* const row = RowOnHost(op, contract);
          const Verdict v =
              JudgeRow(c, {row}, ExpectedOf(c, contract, false), false, 1, 2, LanesOf(*row));
          EXPECT_EQ(v.status, Status::pass)
              << row->function << " " << InfoOf(type).name << " " << shape.rows << " x "
              << shape.cols << ", " << shape.tokens << " tokens: " << v.why << " at " << v.output;
        }
      }
}

// Whole numbers that no order of additions rounds: judged by their bits.
TEST(Prefill, ExactSumsAreExact) {
  for (const BlockType type : kTypes) {
    Case c = MakeCase(Op::down_proj, type, {37, 512, 18});
    Random random(1);
    auto bytes = std::make_shared<std::vector<uint8_t>>(
        MakeBlocks(type, Fill::integers, c.w.rows, c.w.cols, random));
    c.w.data = bytes->data();
    c.owned.push_back(std::move(bytes));
    for (size_t i = 0; i < c.x.size(); ++i) c.x[i] = i % 32 == 0 ? 127 : random.Whole(16);
    c.exact = true;
    for (const Contract contract : kContracts) {
      const auto expected = ExpectedOf(c, contract, false);
      EXPECT_TRUE(expected[0].exact);
      EXPECT_EQ(JudgeRow(c, {RowOnHost(c.op, contract)}, expected, false, 1, 1, 32).why, "")
          << InfoOf(type).name;
    }
  }
}

// The outputs of the first tokens of a case.
std::vector<float> FirstTokens(const Case& c, Contract contract, size_t tokens) {
  Binding<float> binding(c, contract, false);
  binding.Run({RowOnHost(c.op, contract)}, 1);
  std::vector<float> values;
  for (const auto& output : binding.outputs())
    values.insert(values.end(), output.data(), output.data() + tokens * output.n());
  return values;
}

// Sums are formed in another order then: else the other tests here would judge kernels/dot.cuh.
TEST(Prefill, TakesOverFromEightTokensOn) {
  for (const BlockType type : kTypes)
    for (const Contract contract : kContracts) {
      const Case eight = MakeCase(Op::matvec, type, {20, 1024, 8});
      Case seven = eight, one = eight;
      seven.tokens = 7, one.tokens = 1;
      seven.x.resize(7 * 1024), one.x.resize(1024);
      EXPECT_EQ(FirstTokens(one, contract, 1), FirstTokens(seven, contract, 1));
      EXPECT_NE(FirstTokens(eight, contract, 7), FirstTokens(seven, contract, 7));
    }
}

TEST(Prefill, BitsDoNotDependOnTheNumberOfTokens) {
  for (const BlockType type : kTypes)
    for (const Contract contract : kContracts)
      for (const Op op : {Op::matvec, Op::gate_up_swiglu}) {
        const Case all = MakeCase(op, type, {20, 1024, 67});
        Case some = all;
        for (const size_t tokens : {size_t{8}, size_t{13}, size_t{33}}) {
          some.tokens = tokens;
          some.x.assign(all.x.begin(), all.x.begin() + static_cast<ptrdiff_t>(tokens * 1024));
          EXPECT_EQ(FirstTokens(some, contract, tokens), FirstTokens(all, contract, tokens))
              << InfoOf(type).name << ", " << tokens << " tokens";
        }
      }
}

}  // namespace
}  // namespace lab::LAB_CUDA_NAMESPACE
