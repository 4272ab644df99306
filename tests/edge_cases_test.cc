// The edge cases are what they claim to be, and the committed files are what the generator makes.
#include "lab/edge_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "lab/cli.h"
#include "lab/error.h"
#include "lab/judge.h"
#include "reference/dequant_ref.h"
#include "tests/paths.h"
#include "tests/test_util.h"

namespace lab {
namespace {

const std::vector<Case>& Cases() {
  static const std::vector<Case> cases = EdgeCases().cases;
  return cases;
}

std::vector<const Case*> CasesLike(std::string_view glob) {
  std::vector<const Case*> found;
  for (const Case& c : Cases())
    if (Chosen(GlobList(glob), c)) found.push_back(&c);
  EXPECT_FALSE(found.empty()) << glob;
  return found;
}

const Case& TheCase(std::string_view name) {
  return *CasesLike(name).at(0);
}

bool IsDot(const Case& c) {
  return c.op == Op::matvec || c.op == Op::down_proj || c.op == Op::gate_up;
}

std::vector<const WeightView*> WeightsOf(const Case& c) {
  if (!c.w_up.data) return {&c.w};
  return {&c.w, &c.w_up};
}

TEST(EdgeCases, TheCommittedFilesAreWhatTheGeneratorMakes) {
  const TempDir dir;
  WriteCaseFile(dir / "edges", EdgeCases());
  size_t bytes = 0;
  for (const char* name : {"edges.toml", "edges.safetensors"}) {
    const std::string made = ReadText(dir / name);
    EXPECT_TRUE(made == ReadText(std::string(kCasesDir) + "/" + name))
        << name << " differs; if that is meant, run lab capture --edges -o cases/edges";
    bytes += made.size();
  }
  EXPECT_LT(bytes, 1'300'000u);
}

TEST(EdgeCases, TheVerbWritesThemAndTakesNoOtherInput) {
  const TempDir dir;
  const auto run = [](std::vector<std::string> args) {
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    return CmdCapture(static_cast<int>(argv.size()), argv.data());
  };
  EXPECT_EQ(run({"capture", "--edges", "-o", dir / "e"}), kPass);
  EXPECT_EQ(ReadCaseFile(dir / "e.toml").cases.size(), Cases().size());
  for (const char* other : {"--model", "--layer", "--prompt", "--tokens", "--rows", "--ops"})
    EXPECT_THROW(run({"capture", "--edges", "-o", dir / "f", other, "1"}), Error) << other;
  EXPECT_THROW(ReadCaseFile(dir / "f.toml"), Error);
}

TEST(EdgeCases, AreWellFormedAndCoverTypesRowsAndTokens) {
  std::set<std::string> names;
  std::set<BlockType> dot_types, embed_types;
  std::set<size_t> rows, tokens;
  for (const Case& c : Cases()) {
    EXPECT_EQ(ShapeProblem(c), "") << c.name;
    EXPECT_TRUE(names.insert(c.name).second) << c.name;
    if (c.op == Op::embed) {
      embed_types.insert(c.w.type);
      EXPECT_EQ(c.ids.front(), 0);
      EXPECT_TRUE(std::count(c.ids.begin(), c.ids.end(), static_cast<int32_t>(c.w.rows - 1)));
    }
    if (!IsDot(c)) continue;
    dot_types.insert(c.w.type);
    rows.insert(c.w.rows);
    tokens.insert(c.tokens);
  }
  EXPECT_EQ(dot_types.size(), kBlockTypes.size());
  EXPECT_EQ(embed_types.size(), kBlockTypes.size());
  for (const size_t n : {1, 3, 7, 13}) EXPECT_TRUE(rows.count(n)) << n;
  for (const size_t n : {1, 5, 9}) EXPECT_TRUE(tokens.count(n)) << n;
}

// ---- exact cases

// A sum in which nothing is rounded, whatever its order: all terms are whole multiples of one unit
// and their magnitudes add up to less than 2^24 of it. Under q16 the unit is 2^-8, of x and
// therefore of everything.
TEST(EdgeCases, ExactDotsHaveExactSums) {
  for (const Case& c : Cases()) {
    if (!c.exact || !IsDot(c)) continue;
    for (const float x : c.x) ASSERT_EQ(x, std::rint(x)) << c.name;
    for (const WeightView* w : WeightsOf(c)) {
      std::vector<float> weights(w->cols), parts(w->cols);
      for (size_t r = 0; r < w->rows; ++r) {
        DequantRow(w->type, w->row(r), w->cols, weights.data());
        DequantMagnitudes(w->type, w->row(r), w->cols, parts.data());
        for (size_t t = 0; t < c.tokens; ++t) {
          double total = c.vector.empty() ? 0 : std::abs(c.vector[r]);
          for (size_t j = 0; j < w->cols; ++j) {
            ASSERT_EQ(weights[j], std::rint(weights[j])) << c.name;
            ASSERT_EQ(parts[j], std::rint(parts[j])) << c.name;
            total += parts[j] * std::abs(c.x[t * w->cols + j]);
          }
          EXPECT_GT(total, 0) << c.name;
          EXPECT_LT(total, 0x1p24) << c.name;
        }
      }
    }
  }
}

TEST(EdgeCases, ExactDotsAreExactUnderEveryContract) {
  size_t types = 0;
  for (const Case* c : CasesLike("*.integers")) {
    if (c->op == Op::gate_up_swiglu) continue;  // SiLU rounds
    ++types;
    EXPECT_TRUE(c->exact);
    for (const Contract contract : {Contract::f32, Contract::q8, Contract::q16})
      for (const Expected& e : ExpectedOf(*c, contract, false)) EXPECT_TRUE(e.exact) << c->name;
    if (ActivationBlock(c->w.type) == 0) continue;
    const auto scale_of = [&](Contract contract, size_t i) {
      return QuantizeCase(*c, contract, c->w).view().scale[i];
    };
    for (size_t i = 0; i < c->x.size() / ActivationBlock(c->w.type); ++i) {
      ASSERT_EQ(scale_of(Contract::q8, i), 1.0f) << c->name;
      ASSERT_EQ(scale_of(Contract::q16, i), 0x1p-8f) << c->name;
    }
  }
  EXPECT_GE(types, kBlockTypes.size());
}

// Where the integers do not stand for x, the contract has a rounding of its own.
TEST(EdgeCases, AnExactCaseIsNotExactWhereTheContractRounds) {
  Case c = TheCase("edge.matvec.q6_k.integers");
  c.x[0] = 127.3f;
  EXPECT_FALSE(ExpectedOf(c, Contract::q8, false)[0].exact);
  EXPECT_FALSE(ExpectedOf(c, Contract::q16, false)[0].exact);
  EXPECT_TRUE(ExpectedOf(c, Contract::f32, false)[0].exact);
}

TEST(EdgeCases, ExactOutputsFailWhenOneIsOneUlpOff) {
  size_t cases = 0;
  for (const Case& c : Cases()) {
    if (!c.exact) continue;
    ++cases;
    for (const Contract contract : {Contract::f32, Contract::q8, Contract::q16}) {
      const Row* row = FindRow(c.op, contract, Backend::ref);
      if (!row) continue;
      Binding<float> run(c, contract, false);
      run.Run({row}, 1);
      auto outputs = run.outputs();
      Case inexact = c;
      inexact.exact = false;
      const auto judge = [&](const Case& judged) {
        return JudgeOutputs(ExpectedOf(judged, contract, false), outputs, true, 1).status;
      };
      EXPECT_EQ(judge(c), Status::pass) << c.name;
      float& y = outputs[0].data()[outputs[0].size() / 2];
      ASSERT_NE(y, 0) << c.name;
      y = std::nextafter(y, INFINITY);
      EXPECT_EQ(judge(c), Status::fail) << c.name;
      EXPECT_EQ(judge(inexact), Status::pass) << c.name;
    }
  }
  EXPECT_GT(cases, 15u);
}

// ---- weights

// Through the reference's own reading: with d = 1, dmin = 0 and every code 1 a weight is its scale;
// with d = 0 and dmin = 1 it is minus its minimum.
template <class Block>
void CollectSixBits(const WeightView& w, std::set<int>& scales, std::set<int>& mins) {
  for (size_t i = 0; i < w.bytes() / sizeof(Block); ++i) {
    Block block;
    std::memcpy(&block, w.data + i * sizeof block, sizeof block);
    std::memset(block.qs, 0x11, sizeof block.qs);
    if constexpr (requires { block.qh; }) std::memset(block.qh, 0, sizeof block.qh);
    for (const auto& [d, dmin, codes] : {std::tuple(0x3c00, 0, &scales), {0, 0x3c00, &mins}}) {
      block.d = static_cast<uint16_t>(d);
      block.dmin = static_cast<uint16_t>(dmin);
      float out[256];
      DequantRow(w.type, reinterpret_cast<const uint8_t*>(&block), 256, out);
      for (int s = 0; s < 8; ++s) codes->insert(static_cast<int>(std::abs(out[s * 32])));
    }
  }
}

TEST(EdgeCases, EveryScaleCodeOccurs) {
  for (const Case* c : CasesLike("*.every_scale")) {
    for (const WeightView* w : WeightsOf(*c)) {
      std::set<int> scales, mins;
      if (w->type == BlockType::Q6_K) {
        for (size_t i = 0; i < w->bytes() / sizeof(BlockQ6_K); ++i)
          for (const int8_t scale : reinterpret_cast<const BlockQ6_K*>(w->data)[i].scales)
            scales.insert(scale);
        EXPECT_EQ(scales.size(), 256u) << c->name;
        continue;
      }
      if (w->type == BlockType::Q4_K) CollectSixBits<BlockQ4_K>(*w, scales, mins);
      if (w->type == BlockType::Q5_K) CollectSixBits<BlockQ5_K>(*w, scales, mins);
      EXPECT_EQ(scales.size(), 64u) << c->name;
      EXPECT_EQ(mins.size(), 64u) << c->name;
    }
  }
}

// The largest and the smallest magnitude of a case's weights.
std::pair<float, float> Magnitudes(const WeightView& w, bool parts = false) {
  std::vector<float> all(w.rows * w.cols);
  (parts ? DequantMagnitudes : DequantRow)(w.type, w.data, all.size(), all.data());
  for (float& x : all) x = std::abs(x);
  const auto [smallest, largest] = std::minmax_element(all.begin(), all.end());
  return {*smallest, *largest};
}

TEST(EdgeCases, WeightsAreAsExtremeAsTheirNames) {
  for (const Case* c : CasesLike("*.zero_weights")) EXPECT_EQ(Magnitudes(c->w).second, 0);
  for (const Case* c : CasesLike("*.cancelling")) {
    if (!c->w.data) continue;
    EXPECT_GT(Magnitudes(c->w).first, 0) << c->name;
    EXPECT_LT(Magnitudes(c->w).second, Magnitudes(c->w, true).second / 1000) << c->name;
  }
  for (const Case* c : CasesLike("*.largest_*")) {
    if (c->w.data) {
      EXPECT_GE(Magnitudes(c->w).second, 65504.0f) << c->name;
    }
  }
  // Whole numbers times a subnormal half, or subnormal floats.
  for (const Case* c : CasesLike("*.subnormal_weights,*.subnormal_scale,edge.embed.*.subnormal")) {
    const float least_normal_half = 0x1p-14f;
    const float limit = c->w.type == BlockType::F32 || c->w.type == BlockType::BF16
                            ? 0x1p-126f
                            : least_normal_half * (InfoOf(c->w.type).elements == 256 ? 8192 : 128);
    EXPECT_GT(Magnitudes(c->w).second, 0) << c->name;
    EXPECT_LT(Magnitudes(c->w).second, limit) << c->name;
  }
}

// ---- activations

TEST(EdgeCases, OutliersAre2000TimesTheOthers) {
  for (const Case* c : CasesLike("*.outlier")) {
    for (size_t t = 0; t < c->tokens; ++t) {
      std::vector<float> x(c->x.begin() + static_cast<ptrdiff_t>(t * c->n()),
                           c->x.begin() + static_cast<ptrdiff_t>((t + 1) * c->n()));
      for (float& v : x) v = std::abs(v);
      std::sort(x.rbegin(), x.rend());
      EXPECT_GE(x[0], 2000 * x[1]) << c->name;
    }
  }
}

TEST(EdgeCases, HalfStepsFillTheLowerPlaneWithMinus128) {
  for (const Case* c : CasesLike("*.extreme_codes")) {
    if (!IsDot(*c)) continue;
    const QuantizedBuffer q16 = QuantizeCase(*c, Contract::q16, c->w);
    const auto lowest = std::count(q16.view().lo, q16.view().lo + c->x.size(), int8_t{-128});
    EXPECT_GT(static_cast<size_t>(lowest), c->x.size() * 9 / 10) << c->name;
  }
}

TEST(EdgeCases, OneTokenIsSpoiltAndNoOther) {
  for (const Case* c : CasesLike("edge.matvec.*_in_token_1,edge.gate_up.*_in_token_1")) {
    for (const Contract contract : {Contract::f32, Contract::q8, Contract::q16}) {
      for (const Expected& e : ExpectedOf(*c, contract, false))
        for (size_t i = 0; i < e.value.size(); ++i)
          EXPECT_EQ(std::isfinite(e.value[i]), i / e.n != 1) << c->name;
    }
  }
}

TEST(EdgeCases, TiesAreTies) {
  const Case& c = TheCase("edge.quantize.ties");
  for (const auto& [r, token] : {std::pair(1.0f, 0), {256.0f, 1}}) {
    size_t ties = 0;
    for (size_t i = 0; i < 256; ++i) {
      const float scaled = c.x[static_cast<size_t>(token) * 256 + i] * r;
      EXPECT_LE(std::abs(scaled), 127 * r);
      ties += scaled - std::floor(scaled) == 0.5f;
    }
    EXPECT_EQ(ties, 255u);
  }
}

// amax of the three tokens: r = L / amax overflows under both contracts, under q16, under none.
TEST(EdgeCases, TinyBlocksLieOnBothSidesOfTheOverflow) {
  const Case& c = TheCase("edge.quantize.tiny_blocks");
  for (const auto& [contract, zero_tokens] : {std::pair(Contract::q8, 1), {Contract::q16, 2}}) {
    const std::vector<Expected> expected = ExpectedOf(c, contract, false);
    ASSERT_EQ(expected[1].name, "scale");
    for (int t = 0; t < 3; ++t)
      EXPECT_EQ(expected[1].value[static_cast<size_t>(t)] == 0, t < zero_tokens) << t;
  }
}

TEST(EdgeCases, EpsOutweighsTheMeanSquare) {
  const Case& c = TheCase("edge.rms_norm.eps_matters");
  double squares = 0;
  for (const float x : c.x) squares += static_cast<double>(x) * x;
  EXPECT_LT(squares / static_cast<double>(c.x.size()), c.eps / 10);
}

TEST(EdgeCases, PositionsOfRope) {
  EXPECT_EQ(TheCase("edge.rope.position_32767.head_dim_128").first_position, 32767u);
  const Case& across = TheCase("edge.rope.positions_4094_to_4097.head_dim_64");
  EXPECT_EQ(across.first_position, 4094u);
  EXPECT_EQ(across.tokens, 4u);
  const Case& first = TheCase("edge.rope.position_0.head_dim_64");
  const std::vector<Expected> y = ExpectedOf(first, Contract::f32, false);
  for (size_t i = 0; i < first.x.size(); ++i) EXPECT_EQ(y[0].value[i], first.x[i]);
}

// ---- attention

double Score(const Case& c, size_t head, size_t position) {
  const size_t kv_head = head / (c.heads / c.kv_heads);
  const float* q = &c.x[(c.tokens - 1) * c.n() + head * c.head_dim];
  const float* k = &c.k[(position * c.kv_heads + kv_head) * c.head_dim];
  double dot = 0;
  for (size_t i = 0; i < c.head_dim; ++i) dot += static_cast<double>(q[i]) * k[i];
  return dot;
}

std::vector<double> SortedScores(const Case& c, size_t head) {
  std::vector<double> scores;
  for (size_t j = 0; j < c.first_position + c.tokens; ++j) scores.push_back(Score(c, head, j));
  std::sort(scores.rbegin(), scores.rend());
  return scores;
}

TEST(EdgeCases, ScoresOverflowHalfFloats) {
  for (const Case* c : CasesLike("*score*_above_65504"))
    for (size_t h = 0; h < c->heads; ++h) EXPECT_GT(SortedScores(*c, h)[0], 65504) << c->name;
  // Apart so far that exp gives 0 in float and double alike; and so little that both matter.
  const Case& one = TheCase("edge.gqa_attention.score_above_65504");
  for (size_t h = 0; h < one.heads; ++h) {
    const std::vector<double> scores = SortedScores(one, h);
    EXPECT_GT((scores[0] - scores[1]) / std::sqrt(128), 1000);
  }
  const std::vector<double> two =
      SortedScores(TheCase("edge.gqa_attention.two_close_scores_above_65504"), 0);
  EXPECT_NEAR((two[0] - two[1]) / std::sqrt(128), 1.24, 0.01);
}

// What is exact is known without the oracle: one value of v, or the mean of all.
TEST(EdgeCases, ExactAttentionIsWhatItShouldBe) {
  const auto y_of = [](const Case& c) { return ExpectedOf(c, Contract::f32, false)[0].value; };
  const Case& one = TheCase("edge.gqa_attention.one_position.group_6");
  const Case& large = TheCase("edge.gqa_attention.score_above_65504");
  const Case& uniform = TheCase("edge.gqa_attention.128_identical_keys");
  const auto y_one = y_of(one), y_large = y_of(large), y_uniform = y_of(uniform);
  for (size_t i = 0; i < y_one.size(); ++i) EXPECT_EQ(y_one[i], one.v[i / 128 / 6 * 128 + i % 128]);
  for (size_t i = 0; i < y_large.size(); ++i)
    EXPECT_EQ(y_large[i], large.v[(i < 128 ? 4 : 9) * 128 + i % 128]);
  for (size_t i = 0; i < y_uniform.size(); ++i) {
    double sum = 0;
    for (size_t j = 0; j < 128; ++j) sum += uniform.v[j * 64 + i % 64];
    EXPECT_EQ(y_uniform[i], sum / 128);
  }
  // Sums of whole numbers below 2^24 are not rounded in any order; scores are equal in any.
  for (const float v : uniform.v) ASSERT_TRUE(v == std::rint(v) && v > 0 && v < 100);
  for (const std::vector<float>* values : {&uniform.x, &uniform.k, &large.x, &large.k})
    for (const float x : *values) ASSERT_TRUE(x == std::rint(x) && std::abs(x) < 100);
}

TEST(EdgeCases, SpoiltPositionsAreSeenFromThereOnOnly) {
  for (const Case* c : CasesLike("edge.gqa_attention.*_of_position_6")) {
    const std::vector<Expected> y = ExpectedOf(*c, Contract::f32, false);
    for (size_t i = 0; i < y[0].value.size(); ++i) {
      const bool sees = i / y[0].n >= 6 && i % y[0].n < 2 * 64;  // KV head 0 serves heads 0 and 1
      EXPECT_EQ(std::isfinite(y[0].value[i]), !sees) << c->name;
    }
  }
}

}  // namespace
}  // namespace lab
