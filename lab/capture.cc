#include "lab/capture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "model/forward.h"

namespace lab {
namespace {

// The taps of one layer and those outside the layers, as floats [token, channel].
class InputRecorder : public TapSink<double> {
 public:
  explicit InputRecorder(int layer) : layer_(layer) {}
  bool Wants(Tap tap, int layer) const override {
    const bool before = layer == layer_ - 1 && tap == Tap::layer_out;
    const bool last = tap == Tap::layer_out || tap == Tap::embedding || tap == Tap::final_norm;
    return before || layer == layer_ || (layer == kNoLayer && last);
  }
  void OnTap(const TapView<double>& v) override {
    auto& values = taps_[{v.tap, v.layer}];
    for (size_t t = 0; t < v.tokens; ++t)
      for (size_t i = 0; i < v.n; ++i)
        values.push_back(static_cast<float>(v.values[t * v.stride + i]));
  }
  const std::vector<float>& Of(Tap tap) const {
    return taps_.at({tap, InfoOf(tap).per_layer ? layer_ : kNoLayer});
  }
  /// The residual stream as it enters the layer.
  const std::vector<float>& Input() const {
    return layer_ == 0 ? Of(Tap::embedding) : taps_.at({Tap::layer_out, layer_ - 1});
  }

 private:
  int layer_;
  std::map<std::pair<Tap, int>, std::vector<float>> taps_;
};

class Capture {
 public:
  Capture(const Qwen2& model, size_t layer, const std::vector<int32_t>& ids, size_t rows,
          int threads)
      : model_(model),
        layer_(model.layers[layer]),
        prefix_(fmt::format("L{:02}.", layer)),
        ids_(ids),
        rows_(rows),
        inputs_(static_cast<int>(layer)) {
    Forward<double> forward(model, RowSet(Backend::oracle, Contract::f32), KvType::f32, threads,
                            ids.size());
    forward.Run(ids, &inputs_);
  }

  std::vector<Case> Cases(size_t query_tokens) {
    Norms();
    Projections();
    Attention(query_tokens);
    FeedForward();
    OutsideTheLayers();
    Dequant();
    return std::move(cases_);
  }

 private:
  Case& Add(Op op, const std::string& name, Tap input, const char* output) {
    Case& c = cases_.emplace_back();
    c.op = op;
    c.name = name;
    c.input_tap = InfoOf(input).name;
    c.output_tap = output;
    c.tokens = ids_.size();
    c.x = inputs_.Of(input);
    return c;
  }

  // Rows spread evenly over the matrix, and the same elements of a bias.
  void TakeRows(Case& c, WeightView Case::*slot, const WeightView& w,
                const std::vector<float>* bias) {
    const size_t rows = rows_ == 0 ? w.rows : std::min(rows_, w.rows);
    auto bytes = std::make_shared<std::vector<uint8_t>>(rows * w.row_bytes());
    for (size_t r = 0; r < rows; ++r) {
      const size_t from = rows == 1 ? 0 : r * (w.rows - 1) / (rows - 1);
      std::memcpy(bytes->data() + r * w.row_bytes(), w.row(from), w.row_bytes());
      if (bias) c.vector.push_back((*bias)[from]);
    }
    c.*slot = {w.type, bytes->data(), rows, w.cols};
    c.owned.push_back(std::move(bytes));
  }

  void AddMatvec(Op op, const std::string& name, Tap input, const char* output, const WeightView& w,
                 const std::vector<float>* bias = nullptr) {
    TakeRows(Add(op, name, input, output), &Case::w, w, bias);
  }

  void AddNorm(const std::string& name, const std::vector<float>& x,
               const std::vector<float>& weight, const char* output) {
    Case& c = Add(Op::rms_norm, name, Tap::attn_norm, output);
    c.input_tap = "residual";
    c.x = x;
    c.vector = weight;
    c.eps = model_.config.rms_eps;
  }

  void Norms() {
    AddNorm(prefix_ + "attn_norm", inputs_.Input(), layer_.attn_norm, "attn_norm");
    AddNorm(prefix_ + "ffn_norm", inputs_.Of(Tap::attn_residual), layer_.ffn_norm, "ffn_norm");
    for (const auto& [name, tap] : {std::pair("quantize_attn_norm", Tap::attn_norm),
                                    {"quantize_ffn_swiglu", Tap::ffn_swiglu}})
      Add(Op::quantize, prefix_ + name, tap, "-");
    Case& add = Add(Op::residual_add, prefix_ + "layer_out", Tap::attn_residual, "layer_out");
    add.x2 = inputs_.Of(Tap::ffn_out);
  }

  void Projections() {
    AddMatvec(Op::matvec, prefix_ + "q_proj", Tap::attn_norm, "q_bias", layer_.attn_q,
              &layer_.q_bias);
    AddMatvec(Op::matvec, prefix_ + "k_proj", Tap::attn_norm, "k_bias", layer_.attn_k,
              &layer_.k_bias);
    AddMatvec(Op::matvec, prefix_ + "v_proj", Tap::attn_norm, "v_bias", layer_.attn_v,
              &layer_.v_bias);
    AddMatvec(Op::matvec, prefix_ + "attn_output", Tap::attn_ctx, "attn_out", layer_.attn_output);
  }

  void SetHeads(Case& c, size_t heads) {
    c.heads = heads;
    c.kv_heads = model_.config.kv_heads;
    c.head_dim = model_.config.head_dim;
    c.rope_base = model_.config.rope_base;
  }

  void Attention(size_t query_tokens) {
    SetHeads(Add(Op::rope, prefix_ + "q_rope", Tap::q_bias, "q_rope"), model_.config.heads);
    SetHeads(Add(Op::rope, prefix_ + "k_rope", Tap::k_bias, "k_rope"), model_.config.kv_heads);
    const size_t all = ids_.size();
    if (query_tokens == 0 || query_tokens >= all) return AddAttention(prefix_ + "attn_ctx", 0, all);
    for (size_t i = 1; i <= query_tokens; ++i) {
      const size_t position = i * all / query_tokens - 1;
      AddAttention(fmt::format("{}attn_ctx.t{}", prefix_, position), position, 1);
    }
  }

  void AddAttention(const std::string& name, size_t first, size_t tokens) {
    Case& c = Add(Op::gqa_attention, name, Tap::q_rope, "attn_ctx");
    SetHeads(c, model_.config.heads);
    const size_t q_dim = model_.config.q_dim(), seen = (first + tokens) * model_.config.kv_dim();
    const auto q = c.x.begin() + static_cast<ptrdiff_t>(first * q_dim);
    c.x = std::vector<float>(q, q + static_cast<ptrdiff_t>(tokens * q_dim));
    c.tokens = tokens;
    c.first_position = first;
    for (const auto& [tap, to] : {std::pair(Tap::k_rope, &c.k), {Tap::v_bias, &c.v}}) {
      const std::vector<float>& from = inputs_.Of(tap);
      to->assign(from.begin(), from.begin() + static_cast<ptrdiff_t>(seen));
    }
  }

  // On the inputs of a gate_up.
  void AddFused(const std::string& name, Case c) {
    c.op = Op::gate_up_swiglu;
    c.name = name;
    c.output_tap = "ffn_swiglu";
    cases_.push_back(std::move(c));
  }

  void FeedForward() {
    Case& c = Add(Op::gate_up, prefix_ + "gate_up", Tap::ffn_norm, "ffn_gate, ffn_up");
    TakeRows(c, &Case::w, layer_.ffn_gate, nullptr);
    TakeRows(c, &Case::w_up, layer_.ffn_up, nullptr);
    AddFused(prefix_ + "gate_up_swiglu", c);
    Add(Op::silu, prefix_ + "silu", Tap::ffn_gate, "ffn_silu");
    Add(Op::swiglu, prefix_ + "swiglu", Tap::ffn_silu, "ffn_swiglu").x2 = inputs_.Of(Tap::ffn_up);
    AddMatvec(Op::down_proj, prefix_ + "down_proj", Tap::ffn_swiglu, "ffn_out", layer_.ffn_down);
  }

  void OutsideTheLayers() {
    AddMatvec(Op::matvec, "lm_head", Tap::final_norm, "lm_head", model_.output);
    Case& c = Add(Op::embed, "embedding", Tap::embedding, "embedding");
    c.x.clear();
    // The table of the case holds the prompt's rows alone, in order.
    const WeightView& table = model_.token_embd;
    auto bytes = std::make_shared<std::vector<uint8_t>>();
    for (size_t t = 0; t < ids_.size(); ++t) {
      bytes->insert(bytes->end(), table.row(static_cast<size_t>(ids_[t])),
                    table.row(static_cast<size_t>(ids_[t])) + table.row_bytes());
      c.ids.push_back(static_cast<int32_t>(t));
    }
    c.w = {table.type, bytes->data(), ids_.size(), table.cols};
    c.owned.push_back(std::move(bytes));
  }

  void Dequant() {
    for (const auto& [op, type] :
         {std::pair(Op::q4k_dequant, BlockType::Q4_K), {Op::q6k_dequant, BlockType::Q6_K}}) {
      for (const WeightView* w : {&layer_.ffn_gate, &layer_.ffn_down, &layer_.attn_v}) {
        if (w->type != type) continue;
        Case& c = Add(op, prefix_ + std::string(NameOf(op)), Tap::embedding, "-");
        c.input_tap = "-";
        c.tokens = 0;
        c.x.clear();
        TakeRows(c, &Case::w, *w, nullptr);
        break;
      }
    }
  }

  const Qwen2& model_;
  const Qwen2Layer& layer_;
  std::string prefix_;
  const std::vector<int32_t>& ids_;
  size_t rows_;
  InputRecorder inputs_;
  std::vector<Case> cases_;
};

}  // namespace

std::vector<Case> CaptureCases(const Qwen2& model, size_t layer, const std::vector<int32_t>& ids,
                               size_t rows, size_t query_tokens, int threads) {
  return Capture(model, layer, ids, rows, threads).Cases(query_tokens);
}

}  // namespace lab
