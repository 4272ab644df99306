#include "bench/layer_cases.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>
#include <set>

#include "lab/random.h"

namespace lab {
namespace {

struct Role {
  Op op;
  const char* name;
  WeightView Qwen2Layer::*weight;
  std::vector<float> Qwen2Layer::*bias;  // or null
};
constexpr Role kMatvecs[] = {{Op::matvec, "q_proj", &Qwen2Layer::attn_q, &Qwen2Layer::q_bias},
                             {Op::matvec, "k_proj", &Qwen2Layer::attn_k, &Qwen2Layer::k_bias},
                             {Op::matvec, "v_proj", &Qwen2Layer::attn_v, &Qwen2Layer::v_bias},
                             {Op::matvec, "attn_output", &Qwen2Layer::attn_output, nullptr},
                             {Op::down_proj, "down_proj", &Qwen2Layer::ffn_down, nullptr}};

class Maker {
 public:
  Maker(const Qwen2& model, size_t layer, size_t tokens, size_t depth)
      : model_(model), c_(model.config), layer_(layer), tokens_(tokens), depth_(depth) {}

  std::vector<Case> Make() {
    AddWidths();
    for (const Role& role : kMatvecs) AddMatvecs(role);
    AddGateUp();
    AddAttention();
    AddOutsideTheLayers();
    AddDequant();
    return std::move(cases_);
  }

 private:
  Case& Add(Op op, size_t layer, std::string_view name) {
    Case& c = cases_.emplace_back();
    c.op = op;
    c.name = fmt::format("L{:02}.{}", layer, name);
    c.tokens = tokens_;
    return c;
  }
  Case& AddWide(Op op, std::string_view name, size_t width) {
    Case& c = Add(op, layer_, name);
    c.x = Normal(tokens_, width);
    return c;
  }

  // Box and Muller's method; channel 8 is 30 times as large as the others, as in real models.
  std::vector<float> Normal(size_t rows, size_t width) {
    const auto uniform = [&] { return static_cast<double>(random_.Next() >> 11) * 0x1p-53; };
    std::vector<float> values(rows * width);
    for (size_t i = 0; i < values.size(); ++i) {
      const double r = std::sqrt(-2 * std::log(1 - uniform()));
      values[i] = static_cast<float>(r * std::cos(2 * std::numbers::pi * uniform()));
      if (i % width == 8) values[i] *= 30;
    }
    return values;
  }

  void AddWidths() {
    Case& norm = AddWide(Op::rms_norm, "attn_norm", c_.hidden);
    norm.vector = model_.layers[layer_].attn_norm;
    norm.eps = c_.rms_eps;
    AddWide(Op::quantize, "quantize_attn_norm", c_.hidden);
    AddWide(Op::quantize, "quantize_ffn_swiglu", c_.ffn);
    Case& add = AddWide(Op::residual_add, "layer_out", c_.hidden);
    add.x2 = Normal(tokens_, c_.hidden);
    AddWide(Op::silu, "silu", c_.ffn);
    Case& swiglu = AddWide(Op::swiglu, "swiglu", c_.ffn);
    swiglu.x2 = Normal(tokens_, c_.ffn);
  }

  // Of the layer, and of the first layer of each other type.
  void AddMatvecs(const Role& role) {
    std::set<BlockType> seen;
    for (size_t i = 0; i <= c_.layers; ++i) {
      const size_t layer = i == 0 ? layer_ : i - 1;
      const Qwen2Layer& l = model_.layers[layer];
      const WeightView& w = l.*role.weight;
      if (!seen.insert(w.type).second) continue;
      Case& c = Add(role.op, layer, role.name);
      c.w = w;
      c.x = Normal(tokens_, w.cols);
      if (role.bias) c.vector = l.*role.bias;
    }
  }

  void AddGateUp() {
    Case& c = AddWide(Op::gate_up, "gate_up", c_.hidden);
    c.w = model_.layers[layer_].ffn_gate;
    c.w_up = model_.layers[layer_].ffn_up;
    Case fused = c;
    fused.op = Op::gate_up_swiglu;
    fused.name = fmt::format("L{:02}.gate_up_swiglu", layer_);
    cases_.push_back(std::move(fused));
  }

  void SetHeads(Case& c, size_t heads) {
    c.heads = heads;
    c.kv_heads = c_.kv_heads;
    c.head_dim = c_.head_dim;
    c.rope_base = c_.rope_base;
    c.first_position = depth_;
  }

  void AddAttention() {
    SetHeads(AddWide(Op::rope, "q_rope", c_.q_dim()), c_.heads);
    SetHeads(AddWide(Op::rope, "k_rope", c_.kv_dim()), c_.kv_heads);
    Case& c = AddWide(Op::gqa_attention, fmt::format("attn_ctx.d{}", depth_), c_.q_dim());
    SetHeads(c, c_.heads);
    c.k = Normal(depth_ + tokens_, c_.kv_dim());
    c.v = Normal(depth_ + tokens_, c_.kv_dim());
  }

  void AddOutsideTheLayers() {
    // A prefill computes the logits of its last token alone.
    Case& head = AddWide(Op::matvec, "lm_head", c_.hidden);
    head.name = "lm_head";
    head.tokens = 1;
    head.x.resize(c_.hidden);
    head.w = model_.output;
    Case& embed = Add(Op::embed, layer_, "embedding");
    embed.name = "embedding";
    embed.w = model_.token_embd.Rows(0, std::min<size_t>(c_.vocab, 4096));
    for (size_t t = 0; t < tokens_; ++t)
      embed.ids.push_back(static_cast<int32_t>(random_.Below(static_cast<uint32_t>(embed.w.rows))));
  }

  void AddDequant() {
    for (const auto& [op, type] :
         {std::pair(Op::q4k_dequant, BlockType::Q4_K), {Op::q6k_dequant, BlockType::Q6_K}}) {
      for (const Case& c : cases_) {
        if (c.op == Op::embed || c.w.type != type || !c.w.data || c.name == "lm_head") continue;
        Case dequant;
        dequant.op = op;
        dequant.name = c.name + ".dequant";
        dequant.w = c.w;
        cases_.push_back(std::move(dequant));
        break;
      }
    }
  }

  const Qwen2& model_;
  const Qwen2Config& c_;
  size_t layer_, tokens_, depth_;
  Random random_{1};
  std::vector<Case> cases_;
};

}  // namespace

std::vector<Case> LayerCases(const Qwen2& model, size_t layer, size_t tokens, size_t depth) {
  return Maker(model, layer, tokens, depth).Make();
}

}  // namespace lab
