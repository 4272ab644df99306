#include "lab/edge_cases.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <initializer_list>
#include <limits>

#include "lab/edge_blocks.h"

namespace lab {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kLargest = std::numeric_limits<float>::max();

// What is special about the activations of a matvec.
enum class Acts {
  ordinary,  // within [-2, 2)
  zero,
  integers,    // whole numbers; every 32 hold a 127, so that scales are 1 (q8) and 2^-8 (q16)
  half_steps,  // k + 1/2 and a 127 in every 32: ties under q8, the lower plane -128 under q16
  outlier,     // one channel at 2000 times the others
  large,       // about a million, so that products with subnormal weights are normal
};

std::string LowerCase(BlockType type) {
  std::string lower(InfoOf(type).name);
  for (char& c : lower) c = static_cast<char>(std::tolower(c));
  return lower;
}

struct Shape {
  size_t rows, cols, tokens;
};

class Builder {
 public:
  std::vector<Case> Cases() {
    EveryBlockType();
    Activations();
    ScaleCodes();
    GateUp();
    SpoiltTokens();
    Dequant();
    Embed();
    Quantize();
    Norms();
    Elementwise();
    Silu();
    Rope();
    AttentionShapes();
    AttentionScores();
    AttentionOfManyPositions();
    FusedGateUp();
    OneTokenOfManyRows();
    return std::move(cases_);
  }

 private:
  Case& Add(Op op, const std::string& what, size_t tokens) {
    Case& c = cases_.emplace_back();
    c.name = fmt::format("edge.{}.{}", NameOf(op), what);
    c.op = op;
    c.tokens = tokens;
    return c;
  }

  std::vector<float> Uniform(size_t n, float limit) {
    std::vector<float> values(n);
    for (float& v : values) v = random_.Signed() * limit;
    return values;
  }

  std::vector<float> Whole(size_t n, uint32_t limit) {
    std::vector<float> values(n);
    for (float& v : values) v = random_.Whole(limit);
    return values;
  }

  // ---- matvec, down_proj, gate_up

  void SetWeight(Case& c, WeightView Case::*slot, BlockType type, Fill fill, size_t rows,
                 size_t cols) {
    auto bytes =
        std::make_shared<std::vector<uint8_t>>(MakeBlocks(type, fill, rows, cols, random_));
    c.*slot = {type, bytes->data(), rows, cols};
    c.owned.push_back(std::move(bytes));
  }

  std::vector<float> MakeActs(Acts acts, size_t tokens, size_t cols) {
    std::vector<float> x = Uniform(tokens * cols, acts == Acts::large ? 0x1p20f : 2.0f);
    for (size_t i = 0; i < x.size(); ++i) {
      if (acts == Acts::zero) x[i] = 0;
      if (acts == Acts::integers) x[i] = random_.Whole(16);
      if (acts == Acts::half_steps) x[i] = random_.Whole(126) + 0.5f;
      if (acts == Acts::outlier && i % cols == cols / 3) x[i] = i / cols % 2 ? -4000.0f : 4000.0f;
    }
    const bool has_127 = acts == Acts::integers || acts == Acts::half_steps;
    for (size_t i = 0; has_127 && i < x.size(); i += 32) x[i + i / 32 % 16] = 127;
    return x;
  }

  Case& AddDot(Op op, BlockType type, const char* what, Fill fill, Acts acts, Shape shape) {
    Case& c = Add(op, fmt::format("{}.{}", LowerCase(type), what), shape.tokens);
    SetWeight(c, &Case::w, type, fill, shape.rows, shape.cols);
    c.x = MakeActs(acts, shape.tokens, shape.cols);
    return c;
  }

  // Each type as one block and as whole numbers, with the largest and with subnormal scales; ops,
  // rows and tokens take turns.
  void EveryBlockType() {
    constexpr size_t kRows[] = {1, 3, 7, 13}, kTokens[] = {1, 5, 9};
    size_t turn = 0;
    for (const BlockTypeInfo& info : kBlockTypes) {
      const bool floats = info.elements == 1, long_blocks = info.elements == 256;
      const size_t one =
          floats ? 259 : info.elements;  // float weights: a tail for every SIMD length
      const size_t some = floats ? 320 : long_blocks ? 768 : 288;
      const auto next = [&](size_t cols) {
        ++turn;
        return Shape{kRows[turn % 4], cols, kTokens[turn % 3]};
      };
      const Op op = turn / 4 % 2 ? Op::down_proj : Op::matvec;
      AddDot(op, info.type, floats ? "259_columns" : "one_block", Fill::ordinary, Acts::ordinary,
             next(one));
      Case& whole = AddDot(op, info.type, "integers", Fill::integers, Acts::integers, next(some));
      whole.exact = true;
      if (op == Op::matvec) whole.vector = Whole(whole.w.rows, 1000);
      AddDot(op, info.type, floats ? "largest_weights" : "largest_scale", Fill::largest,
             Acts::ordinary, {3, some, 2});
      AddDot(op, info.type, floats ? "subnormal_weights" : "subnormal_scale", Fill::subnormal,
             Acts::large, {3, some, 2});
    }
  }

  void Activations() {
    for (const auto& [op, type] : {std::pair(Op::matvec, BlockType::Q4_K),
                                   {Op::down_proj, BlockType::Q6_K},
                                   {Op::matvec, BlockType::Q8_0},
                                   {Op::matvec, BlockType::F16}}) {
      AddDot(op, type, "zero_activations", Fill::ordinary, Acts::zero, {3, 256, 2});
      AddDot(op, type, "zero_weights", Fill::zero, Acts::ordinary, {3, 256, 2});
      AddDot(op, type, "outlier", Fill::ordinary, Acts::outlier, {7, 1536, 2});
    }
  }

  void ScaleCodes() {
    for (const BlockType type : {BlockType::Q4_K, BlockType::Q5_K, BlockType::Q6_K})
      AddDot(Op::matvec, type, "every_scale", Fill::every_scale, Acts::ordinary, {4, 1024, 2});
    for (const BlockType type : {BlockType::Q4_K, BlockType::Q5_K})
      AddDot(Op::down_proj, type, "cancelling", Fill::cancelling, Acts::ordinary, {3, 512, 2});
    for (const BlockTypeInfo& info : kBlockTypes) {
      if (info.elements == 1) continue;
      AddDot(Op::matvec, info.type, "extreme_codes", Fill::extreme_codes, Acts::half_steps,
             {2, 512, 5});
    }
  }

  Case& AddGateUp(const std::string& what, BlockType gate, BlockType up, Fill fill, Acts acts,
                  Shape shape) {
    Case& c = Add(Op::gate_up, what, shape.tokens);
    SetWeight(c, &Case::w, gate, fill, shape.rows, shape.cols);
    SetWeight(c, &Case::w_up, up, fill, shape.rows, shape.cols);
    c.x = MakeActs(acts, shape.tokens, shape.cols);
    return c;
  }

  void GateUp() {
    for (const auto& [gate, up] : {std::pair(BlockType::Q4_K, BlockType::Q4_K),
                                   {BlockType::Q6_K, BlockType::Q6_K},
                                   {BlockType::Q4_K, BlockType::Q6_K},
                                   {BlockType::Q5_0, BlockType::Q8_0},
                                   {BlockType::F16, BlockType::BF16}}) {
      const std::string types = fmt::format("{}_{}", LowerCase(gate), LowerCase(up));
      AddGateUp(fmt::format("{}.256_columns", types), gate, up, Fill::ordinary, Acts::ordinary,
                {13, 256, 1});
      AddGateUp(fmt::format("{}.integers", types), gate, up, Fill::integers, Acts::integers,
                {7, 512, 5})
          .exact = true;
    }
    const auto add = [&](const char* what, Fill fill, Acts acts, Shape shape) {
      AddGateUp(fmt::format("q4_k_q4_k.{}", what), BlockType::Q4_K, BlockType::Q4_K, fill, acts,
                shape);
    };
    add("zero_activations", Fill::ordinary, Acts::zero, {3, 256, 2});
    add("zero_weights", Fill::zero, Acts::ordinary, {3, 256, 2});
    add("outlier", Fill::ordinary, Acts::outlier, {3, 768, 9});
    add("every_scale", Fill::every_scale, Acts::ordinary, {1, 2048, 1});
    add("cancelling", Fill::cancelling, Acts::ordinary, {3, 512, 5});
    add("extreme_codes", Fill::extreme_codes, Acts::half_steps, {3, 512, 5});
  }

  // Every gate_up once more with SiLU and the product behind it.
  void FusedGateUp() {
    for (size_t i = 0, n = cases_.size(); i < n; ++i) {
      if (cases_[i].op != Op::gate_up) continue;
      Case c = cases_[i];
      const std::string gate_up = fmt::format("edge.{}.", NameOf(Op::gate_up));
      c.op = Op::gate_up_swiglu;
      c.exact = false;  // SiLU rounds
      c.name = fmt::format("edge.{}.{}", NameOf(c.op), c.name.substr(gate_up.size()));
      cases_.push_back(std::move(c));
    }
  }

  // Token 1 of three is spoilt; the other two must not notice.
  void SpoiltTokens() {
    const auto spoil = [](Case& c, float by) { c.x[c.n() + c.n() / 2] = by; };
    for (const auto& [type, what, by] : {std::tuple(BlockType::Q4_K, "nan_in_token_1", kNaN),
                                         {BlockType::Q4_K, "inf_in_token_1", kInf},
                                         {BlockType::Q6_K, "nan_in_token_1", kNaN},
                                         {BlockType::Q5_0, "minus_inf_in_token_1", -kInf},
                                         {BlockType::F32, "nan_in_token_1", kNaN}})
      spoil(AddDot(Op::matvec, type, what, Fill::ordinary, Acts::ordinary, {3, 512, 3}), by);
    spoil(AddGateUp("q4_k_q4_k.nan_in_token_1", BlockType::Q4_K, BlockType::Q4_K, Fill::ordinary,
                    Acts::ordinary, {3, 512, 3}),
          kNaN);
    Case& norm = Add(Op::rms_norm, "nan_and_inf_in_tokens_1_and_2", 4);
    norm.x = Uniform(4 * 96, 2);
    norm.x[96 + 40] = kNaN;
    norm.x[2 * 96 + 40] = kInf;
    norm.vector = Uniform(96, 1);
    norm.eps = 1e-6f;
  }

  // ---- weights alone

  void Dequant() {
    for (const auto& [op, type] :
         {std::pair(Op::q4k_dequant, BlockType::Q4_K), {Op::q6k_dequant, BlockType::Q6_K}}) {
      for (const auto& [what, fill, rows] : {std::tuple("every_scale", Fill::every_scale, 8),
                                             {"largest_scale", Fill::largest, 3},
                                             {"subnormal_scale", Fill::subnormal, 3},
                                             {"extreme_codes", Fill::extreme_codes, 1},
                                             {"zero", Fill::zero, 1}})
        SetWeight(Add(op, what, 0), &Case::w, type, fill, static_cast<size_t>(rows), 512);
    }
    SetWeight(Add(Op::q4k_dequant, "cancelling", 0), &Case::w, BlockType::Q4_K, Fill::cancelling, 3,
              512);
  }

  // The first and the last row of every type.
  void Embed() {
    for (const BlockTypeInfo& info : kBlockTypes) {
      for (const auto& [what, fill] :
           {std::pair("first_and_last_row", Fill::ordinary), {"subnormal", Fill::subnormal}}) {
        Case& c = Add(Op::embed, fmt::format("{}.{}", LowerCase(info.type), what), 4);
        SetWeight(c, &Case::w, info.type, fill, 5, info.elements == 1 ? 259 : 256);
        c.ids = {0, 4, 2, 0};
      }
    }
  }

  // ---- activations

  Case& AddQuantize(const char* what, size_t tokens, size_t n, float limit) {
    Case& c = Add(Op::quantize, what, tokens);
    c.x = Uniform(tokens * n, limit);
    return c;
  }

  void Quantize() {
    // amax = L exactly under q8, so x r = k + 1/2; under q16, r = 256, the odd 512ths are ties.
    Case& ties = AddQuantize("ties", 2, 256, 1);
    for (size_t i = 0; i < 256; ++i) {
      ties.x[i] = static_cast<float>(i % 254) - 126.5f;
      ties.x[256 + i] = (2 * random_.Whole(32000) + 1) * 0x1p-9f;
    }
    ties.x[0] = ties.x[256] = 127;
    AddQuantize("zero_block", 1, 512, 1).x = std::vector<float>(512, 0.0f);
    AddQuantize("nan_in_one_block", 2, 512, 1).x[700] = kNaN;
    AddQuantize("inf_in_one_block", 2, 512, 1).x[300] = -kInf;
    // amax subnormal; 2^-120, where r overflows under q16 alone; 2^-110, where it never does.
    Case& tiny = AddQuantize("tiny_blocks", 3, 256, 1);
    constexpr float kScale[] = {0x1p-130f, 0x1p-120f, 0x1p-110f};
    for (size_t i = 0; i < tiny.x.size(); ++i) tiny.x[i] *= kScale[i / 256];
    Case& opposite = AddQuantize("largest_with_both_signs", 1, 256, 1);
    opposite.x[100] = 1.7f;
    opposite.x[20] = opposite.x[255] = -1.7f;
    AddQuantize("huge_block", 1, 256, 1).x[9] = kLargest;
    AddQuantize("blocks_of_32", 5, 288, 3);
  }

  void Norms() {
    const auto add = [&](const char* what, size_t tokens, size_t n, float limit) -> Case& {
      Case& c = Add(Op::rms_norm, what, tokens);
      c.x = Uniform(tokens * n, limit);
      c.vector = Uniform(n, 2);
      c.eps = 1e-6f;
      return c;
    };
    add("eps_matters", 3, 256, 1e-4f);
    add("zeros", 1, 256, 1).x = std::vector<float>(256, 0.0f);
    add("one_spike", 2, 256, 0.01f).x[200] = -8000;
    add("259_channels", 3, 259, 2);
    add("one_channel", 2, 1, 2);
  }

  Case& AddPair(Op op, const std::string& what, std::vector<float> a, std::vector<float> b) {
    Case& c = Add(op, what, 1);
    c.x = std::move(a);
    c.x2 = std::move(b);
    return c;
  }

  void Elementwise() {
    // Drawn one by one: compilers evaluate arguments in different orders.
    std::vector<float> small = Uniform(259, 1e-5f), large = Uniform(259, 100);
    Case& cancel = AddPair(Op::residual_add, "cancelling", std::move(large), std::move(small));
    for (size_t i = 0; i < 259; ++i)
      cancel.x2[i] = i % 3 ? cancel.x2[i] - cancel.x[i] : -cancel.x[i];
    AddPair(
        Op::residual_add, "zeros_and_specials",
        {-0.0f, 0.0f, -0.0f, 1e-45f, -1e-45f, 0x1p-126f, 1.0f, kInf, kNaN, kInf, kLargest},
        {-0.0f, -0.0f, 0.0f, -1e-45f, -1e-45f, -1e-45f, 0x1p-24f, 1.0f, 1.0f, -kInf, -kLargest});
    AddPair(Op::swiglu, "zeros_and_specials",
            {kInf, 0.0f, -0.0f, -0.0f, kNaN, kInf, 1e-45f, 0x1p-126f, 0x1p-75f, 3.0f, -0x1p127f},
            {0.0f, -kInf, 3.0f, -3.0f, 0.0f, -2.0f, 0.5f, 0.75f, 0x1p-74f, 1e-45f, 1.9f});
    std::vector<float> up = Uniform(259, 0x1p-70f), gate = Uniform(259, 0x1p-70f);
    AddPair(Op::swiglu, "subnormal_products", std::move(gate), std::move(up));
  }

  void Silu() {
    Case& range = Add(Op::silu, "minus_200_to_200", 1);
    for (int i = -1600; i <= 1600; ++i) range.x.push_back(static_cast<float>(i) * 0.125f);
    Add(Op::silu, "specials", 1).x = {kInf,    -kInf,    kNaN,      0.0f,    -0.0f,   1e-45f,
                                      -1e-45f, 1e-40f,   -1e-40f,   1e-30f,  -1e-30f, 1e4f,
                                      -1e4f,   kLargest, -kLargest, -87.33f, -87.34f, -88.72f,
                                      -88.73f, -103.97f, -104.1f};
  }

  Case& AddRope(const std::string& what, size_t tokens, size_t first, size_t heads,
                size_t head_dim) {
    Case& c = Add(Op::rope, fmt::format("{}.head_dim_{}", what, head_dim), tokens);
    c.x = Uniform(tokens * heads * head_dim, 8);
    c.first_position = first;
    c.heads = heads;
    c.head_dim = head_dim;
    c.rope_base = 1e6f;
    return c;
  }

  void Rope() {
    for (const size_t head_dim : {size_t{64}, size_t{128}}) {
      AddRope("position_0", 1, 0, 3, head_dim).exact = true;  // cos 1, sin 0
      AddRope("position_32767", 1, 32767, 3, head_dim);
      AddRope("positions_4094_to_4097", 4, 4094, 2, head_dim);
    }
  }

  // ---- attention

  Case& AddAttention(const std::string& what, size_t tokens, size_t first, size_t heads,
                     size_t kv_heads, size_t head_dim) {
    Case& c = Add(Op::gqa_attention, what, tokens);
    const size_t kv = (first + tokens) * kv_heads * head_dim;
    c.x = Uniform(tokens * heads * head_dim, 2);
    c.k = Uniform(kv, 2);
    c.v = Uniform(kv, 1);
    c.first_position = first;
    c.heads = heads;
    c.kv_heads = kv_heads;
    c.head_dim = head_dim;
    return c;
  }

  void AttentionShapes() {
    // A single position has weight 1, so y is v.
    AddAttention("one_position.group_6", 1, 0, 12, 2, 128).exact = true;
    AddAttention("one_position.group_1", 1, 0, 2, 2, 64).exact = true;
    AddAttention("33_positions.group_2", 33, 0, 4, 2, 64);
    AddAttention("decode.group_6", 1, 32, 6, 1, 128);
    AddAttention("decode.group_1", 1, 20, 3, 3, 64);
    // Positions from 6 on are spoilt, the first six tokens and the other KV head are not.
    for (const auto& [what, field, by] : {std::tuple("nan_in_v_of_position_6", &Case::v, kNaN),
                                          {"inf_in_v_of_position_6", &Case::v, kInf},
                                          {"nan_in_k_of_position_6", &Case::k, kNaN}}) {
      std::vector<float>& values = AddAttention(what, 9, 0, 4, 2, 64).*field;
      std::fill_n(values.begin() + 6 * 2 * 64, 64, by);
    }
  }

  void AttentionScores() {
    // |q . k| = 128 * 30 * 30 = 115,200 at one position, which overflows half floats. All dots are
    // whole numbers and all others so much smaller that the weights are exactly 1 and 0.
    Case& large = AddAttention("score_above_65504", 1, 15, 2, 1, 128);
    for (float& q : large.x) q = random_.Below(2) ? 30.0f : -30.0f;
    for (float& k : large.k) k = random_.Below(2) ? 30.0f : -30.0f;
    std::copy_n(large.x.begin(), 128, large.k.begin() + 4 * 128);
    std::copy_n(large.x.begin() + 128, 128, large.k.begin() + 9 * 128);
    large.exact = true;
    // Two such scores 1.24 apart: the largest has to be subtracted before exp, in float.
    Case& close = AddAttention("two_close_scores_above_65504", 1, 15, 1, 1, 128);
    for (float& q : close.x) q = random_.Below(2) ? 30.0f : -30.0f;
    for (const size_t j : {size_t{4}, size_t{9}})
      std::copy_n(close.x.begin(), 128, &close.k[j * 128]);
    close.k[9 * 128] *= 1 - 0x1p-6f;
    // A query far behind identical keys: the weights are 2^-7, v whole numbers, so the mean is
    // exact.
    Case& uniform = AddAttention("128_identical_keys", 1, 127, 2, 1, 64);
    uniform.x = Whole(uniform.x.size(), 4);
    const std::vector<float> key = Whole(64, 4);
    for (size_t i = 0; i < uniform.k.size(); ++i) uniform.k[i] = key[i % 64];
    for (float& v : uniform.v) v = 20 + random_.Whole(15);
    uniform.exact = true;
  }

  // More positions than kernels take at a time, by one token and by several, and more heads of one
  // KV head.
  void AttentionOfManyPositions() {
    AddAttention("decode_after_299.group_7", 1, 299, 7, 1, 16);
    AddAttention("3_tokens_after_127.group_9", 3, 127, 9, 1, 32);
  }

  // Decoding takes more rows at a time than the other cases have: 107 = 3 * 32 + 8 + 3, of which
  // the second of two slices has 75.
  void OneTokenOfManyRows() {
    AddDot(Op::matvec, BlockType::Q4_K, "decode_107_rows", Fill::ordinary, Acts::ordinary,
           {107, 256, 1});
  }

  Random random_{20261123};
  std::vector<Case> cases_;
};

}  // namespace

CaseFile EdgeCases() {
  CaseFile file;
  file.model = "none, made by lab capture --edges";
  file.cases = Builder().Cases();
  return file;
}

}  // namespace lab
