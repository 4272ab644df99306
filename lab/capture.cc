#include "lab/capture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "model/forward.h"

namespace lab {
namespace {

class StepMaker {
 public:
  StepMaker(const Qwen2& model, int layer, const CapturedTaps& taps,
            const std::vector<int32_t>& ids, size_t rows)
      : model_(model),
        layer_(layer),
        prefix_(layer == kNoLayer ? "" : fmt::format("L{:02}.", layer)),
        taps_(taps),
        ids_(ids),
        rows_(rows) {}

  std::vector<Case> Steps(size_t query_tokens) {
    if (layer_ == kNoLayer) {
      OutsideTheLayers();
    } else {
      const Qwen2Layer& w = model_.layers[static_cast<size_t>(layer_)];
      Attention(w, query_tokens);
      FeedForward(w);
    }
    return std::move(cases_);
  }

  std::vector<Case> Dequant() {
    const Qwen2Layer& layer = model_.layers[static_cast<size_t>(layer_)];
    for (const auto& [op, type] :
         {std::pair(Op::q4k_dequant, BlockType::Q4_K), {Op::q6k_dequant, BlockType::Q6_K}}) {
      for (const WeightView* w : {&layer.ffn_gate, &layer.ffn_down, &layer.attn_v}) {
        if (w->type != type) continue;
        Case& c = cases_.emplace_back();
        c.op = op;
        c.name = prefix_ + std::string(NameOf(op));
        TakeRows(c, &Case::w, *w, nullptr);
        break;
      }
    }
    return std::move(cases_);
  }

 private:
  std::vector<float> ValuesOf(Tap tap) const {
    const std::vector<double>& values =
        taps_.Of(tap, InfoOf(tap).per_layer ? layer_ : int{kNoLayer});
    return {values.begin(), values.end()};
  }
  // The residual stream as it enters `layer`, and its tap.
  std::pair<Tap, std::vector<float>> Entering(int layer) const {
    const Tap tap = layer == 0 ? Tap::embedding : Tap::layer_out;
    const std::vector<double>& values = taps_.Of(tap, layer == 0 ? int{kNoLayer} : layer - 1);
    return {tap, {values.begin(), values.end()}};
  }

  Case& Add(Op op, const std::string& name, Tap input, std::vector<float> x, const char* output) {
    Case& c = cases_.emplace_back();
    c.op = op;
    c.name = prefix_ + name;
    c.input_tap = InfoOf(input).name;
    c.output_tap = output;
    c.tokens = ids_.size();
    c.x = std::move(x);
    return c;
  }
  Case& Add(Op op, const std::string& name, Tap input, const char* output) {
    return Add(op, name, input, ValuesOf(input), output);
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

  void AddNorm(Tap output, std::pair<Tap, std::vector<float>> input,
               const std::vector<float>& weight) {
    const std::string name(InfoOf(output).name);
    Case& c = Add(Op::rms_norm, name, input.first, std::move(input.second), "");
    c.output_tap = name;
    c.vector = weight;
    c.eps = model_.config.rms_eps;
  }

  void AddQuantize(Tap input) {
    Add(Op::quantize, "quantize_" + std::string(InfoOf(input).name), input, "-");
  }

  void AddResidual(Tap output, std::pair<Tap, std::vector<float>> input, Tap second) {
    Case& c = Add(Op::residual_add, std::string(InfoOf(output).name), input.first,
                  std::move(input.second), "");
    c.output_tap = InfoOf(output).name;
    AddSecond(c, second);
  }
  void AddSecond(Case& c, Tap second) {
    c.input_tap += fmt::format(", {}", InfoOf(second).name);
    c.x2 = ValuesOf(second);
  }

  void SetHeads(Case& c, size_t heads) {
    c.heads = heads;
    c.kv_heads = model_.config.kv_heads;
    c.head_dim = model_.config.head_dim;
    c.rope_base = model_.config.rope_base;
  }

  void Attention(const Qwen2Layer& w, size_t query_tokens) {
    AddNorm(Tap::attn_norm, Entering(layer_), w.attn_norm);
    AddQuantize(Tap::attn_norm);
    AddMatvec(Op::matvec, "q_proj", Tap::attn_norm, "q_bias", w.attn_q, &w.q_bias);
    AddMatvec(Op::matvec, "k_proj", Tap::attn_norm, "k_bias", w.attn_k, &w.k_bias);
    AddMatvec(Op::matvec, "v_proj", Tap::attn_norm, "v_bias", w.attn_v, &w.v_bias);
    SetHeads(Add(Op::rope, "q_rope", Tap::q_bias, "q_rope"), model_.config.heads);
    SetHeads(Add(Op::rope, "k_rope", Tap::k_bias, "k_rope"), model_.config.kv_heads);
    AddQueries(query_tokens);
    AddQuantize(Tap::attn_ctx);
    AddMatvec(Op::matvec, "attn_output", Tap::attn_ctx, "attn_out", w.attn_output);
    AddResidual(Tap::attn_residual, Entering(layer_), Tap::attn_out);
  }

  void AddQueries(size_t query_tokens) {
    const size_t all = ids_.size();
    if (query_tokens == 0 || query_tokens >= all) return AddAttention("attn_ctx", 0, all);
    for (size_t i = 1; i <= query_tokens; ++i) {
      const size_t position = i * all / query_tokens - 1;
      AddAttention(fmt::format("attn_ctx.t{}", position), position, 1);
    }
  }

  void AddAttention(const std::string& name, size_t first, size_t tokens) {
    Case& c = Add(Op::gqa_attention, name, Tap::q_rope, "attn_ctx");
    c.input_tap = "q_rope, k_rope, v_bias";
    SetHeads(c, model_.config.heads);
    const size_t q_dim = model_.config.q_dim(), seen = (first + tokens) * model_.config.kv_dim();
    const auto q = c.x.begin() + static_cast<ptrdiff_t>(first * q_dim);
    c.x = std::vector<float>(q, q + static_cast<ptrdiff_t>(tokens * q_dim));
    c.tokens = tokens;
    c.first_position = first;
    for (const auto& [tap, to] : {std::pair(Tap::k_rope, &c.k), {Tap::v_bias, &c.v}}) {
      *to = ValuesOf(tap);
      to->resize(seen);
    }
  }

  // On the inputs of a gate_up.
  void AddFused(Case c) {
    c.op = Op::gate_up_swiglu;
    c.name = prefix_ + "gate_up_swiglu";
    c.output_tap = "ffn_swiglu";
    cases_.push_back(std::move(c));
  }

  void FeedForward(const Qwen2Layer& w) {
    AddNorm(Tap::ffn_norm, {Tap::attn_residual, ValuesOf(Tap::attn_residual)}, w.ffn_norm);
    AddQuantize(Tap::ffn_norm);
    Case& c = Add(Op::gate_up, "gate_up", Tap::ffn_norm, "ffn_gate, ffn_up");
    TakeRows(c, &Case::w, w.ffn_gate, nullptr);
    TakeRows(c, &Case::w_up, w.ffn_up, nullptr);
    AddFused(c);
    Add(Op::silu, "silu", Tap::ffn_gate, "ffn_silu");
    AddSecond(Add(Op::swiglu, "swiglu", Tap::ffn_silu, "ffn_swiglu"), Tap::ffn_up);
    AddQuantize(Tap::ffn_swiglu);
    AddMatvec(Op::down_proj, "down_proj", Tap::ffn_swiglu, "ffn_out", w.ffn_down);
    AddResidual(Tap::layer_out, {Tap::attn_residual, ValuesOf(Tap::attn_residual)}, Tap::ffn_out);
  }

  void OutsideTheLayers() {
    AddEmbedding();
    AddNorm(Tap::final_norm, Entering(static_cast<int>(model_.config.layers)), model_.output_norm);
    AddQuantize(Tap::final_norm);
    AddMatvec(Op::matvec, "lm_head", Tap::final_norm, "lm_head", model_.output);
  }

  // The table of the case holds the prompt's rows alone, in order.
  void AddEmbedding() {
    Case& c = cases_.emplace_back();
    c.op = Op::embed;
    c.name = "embedding";
    c.output_tap = "embedding";
    c.tokens = ids_.size();
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

  const Qwen2& model_;
  int layer_;
  std::string prefix_;
  const CapturedTaps& taps_;
  const std::vector<int32_t>& ids_;
  size_t rows_;
  std::vector<Case> cases_;
};

// The taps of a list such as "ffn_silu, ffn_up"; none for "-".
std::vector<Tap> TapsOf(std::string_view list) {
  std::vector<Tap> taps;
  for (size_t t = 0; t < Taps().size(); ++t)
    for (size_t at = 0; at < list.size();) {
      const size_t end = std::min(list.find(", ", at), list.size());
      if (list.substr(at, end - at) == Taps()[t].name) taps.push_back(static_cast<Tap>(t));
      at = end + 2;
    }
  return taps;
}

}  // namespace

bool CapturedTaps::Wants(Tap tap, int layer) const {
  if (!layer_ || layer == *layer_) return true;
  if (tap == Tap::layer_out) return layer == *layer_ - 1 || layer == last_;
  return tap == Tap::embedding || tap == Tap::final_norm;
}

void CapturedTaps::OnTap(const TapView<double>& v) {
  std::vector<double>& values = taps_[{v.tap, v.layer}];
  for (size_t t = 0; t < v.tokens; ++t)
    values.insert(values.end(), v.values + t * v.stride, v.values + t * v.stride + v.n);
}

const std::vector<double>& CapturedTaps::Of(Tap tap, int layer) const {
  return taps_.at({tap, layer});
}

std::vector<Case> StepCases(const Qwen2& model, int layer, const CapturedTaps& taps,
                            const std::vector<int32_t>& ids, size_t rows, size_t query_tokens) {
  return StepMaker(model, layer, taps, ids, rows).Steps(query_tokens);
}

std::vector<TapPlace> StepOutputs(const Case& c, int layer) {
  std::vector<TapPlace> places;
  for (const Tap tap : TapsOf(c.output_tap)) places.emplace_back(tap, layer);
  return places;
}

bool HasMatrix(Op op) {
  return op == Op::matvec || op == Op::down_proj || op == Op::gate_up || op == Op::gate_up_swiglu;
}

std::vector<TapPlace> StepInputs(const Case& c, int layer, size_t layers) {
  std::vector<TapPlace> places;
  const std::vector<Tap> outputs = TapsOf(c.output_tap);
  for (const Tap tap : TapsOf(c.input_tap)) {
    const bool of_layer_before = !outputs.empty() && tap > outputs[0];
    int at = layer == kNoLayer ? static_cast<int>(layers) - 1 : layer - of_layer_before;
    if (!InfoOf(tap).per_layer) at = kNoLayer;
    places.emplace_back(tap, at);
  }
  return places;
}

std::vector<Case> WeightCases(const Qwen2& model, int layer) {
  const Qwen2Layer& w = model.layers[static_cast<size_t>(layer)];
  std::vector<Case> cases;
  const auto add = [&](Op op, const char* name, const WeightView& first, WeightView second = {}) {
    Case& c = cases.emplace_back();
    c.op = op;
    c.name = fmt::format("L{:02}.{}", layer, name);
    c.w = first;
    c.w_up = second;
  };
  add(Op::matvec, "q_proj", w.attn_q);
  add(Op::matvec, "k_proj", w.attn_k);
  add(Op::matvec, "v_proj", w.attn_v);
  add(Op::matvec, "attn_output", w.attn_output);
  add(Op::gate_up, "gate_up", w.ffn_gate, w.ffn_up);
  add(Op::gate_up_swiglu, "gate_up_swiglu", w.ffn_gate, w.ffn_up);
  add(Op::down_proj, "down_proj", w.ffn_down);
  return cases;
}

std::vector<Case> CaptureCases(const Qwen2& model, size_t layer, const std::vector<int32_t>& ids,
                               size_t rows, size_t query_tokens, int threads) {
  const int index = static_cast<int>(layer);
  CapturedTaps taps(index, model.config.layers);
  Forward<double> forward(model, RowSet(Backend::oracle, Contract::f32), KvType::f32, threads,
                          ids.size());
  forward.Run(ids, &taps);
  std::vector<Case> cases;
  const auto append = [&](std::vector<Case> more) {
    std::move(more.begin(), more.end(), std::back_inserter(cases));
  };
  append(StepCases(model, index, taps, ids, rows, query_tokens));
  append(StepCases(model, kNoLayer, taps, ids, rows, query_tokens));
  append(StepMaker(model, index, taps, ids, rows).Dequant());
  return cases;
}

}  // namespace lab
