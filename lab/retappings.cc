#include "lab/retappings.h"

#include <bit>
#include <cmath>

#include "kernels/half.h"
#include "lab/error.h"
#include "model/rope_angles.h"
#include "reference/dequant_ref.h"

namespace lab {
namespace {

using Row = std::vector<double>;
using MakeRow = std::function<Row(const Row& row, size_t token)>;

// What the readings are made of: the values of our run.
struct Source {
  Tap tap;
  const RunRecord& ours;
  const Qwen2Config* config;
  bool figures_only;

  const TokenRecord* Find(Tap tap, int layer, size_t token) const {
    const auto it = ours.tokens.find({tap, layer, token});
    return it == ours.tokens.end() ? nullptr : &it->second;
  }
  std::optional<Facts> Take(Tap tap, int layer, size_t token) const {
    const TokenRecord* record = Find(tap, layer, token);
    if (!record) return std::nullopt;
    if (!figures_only) return FactsOf(*record, ours.header.std_kind);
    Facts facts = {record->figures, {}, {}, {}};
    Complete(facts.figures, ours.header.std_kind);
    return facts;
  }
  std::optional<Row> TakeRow(Tap tap, int layer, size_t token) const {
    const TokenRecord* record = Find(tap, layer, token);
    if (!record || !record->row) return std::nullopt;
    return record->row->Read();
  }
  std::optional<Facts> SideBySide(std::initializer_list<Tap> taps, int layer, size_t token) const {
    std::vector<Facts> parts;
    std::vector<const Figures*> figures;
    Row row;
    bool rows = true;
    for (const Tap tap : taps) {
      auto part = Take(tap, layer, token);
      if (!part) return std::nullopt;
      rows &= !part->row.empty();
      row.insert(row.end(), part->row.begin(), part->row.end());
      parts.push_back(std::move(*part));
    }
    if (rows) return FactsOf(std::move(row));
    for (const Facts& part : parts) figures.push_back(&part.figures);
    return Facts{PoolFigures(figures), {}, {}, {}};
  }

  std::optional<Facts> BareNorm(int layer, size_t token) const {
    Tap input = Tap::attn_residual;
    int from = layer;
    if (tap == Tap::attn_norm)
      input = layer == 0 ? Tap::embedding : Tap::layer_out, from = layer - 1;
    if (tap == Tap::final_norm) input = Tap::layer_out, from = static_cast<int>(config->layers) - 1;
    auto row = TakeRow(input, input == Tap::embedding ? kNoLayer : from, token);
    if (!row) return std::nullopt;
    double squares = 0;
    for (const double x : *row) squares += x * x;
    const double scale =
        1 / std::sqrt(squares / static_cast<double>(row->size()) + config->rms_eps);
    for (double& x : *row) x *= scale;
    return FactsOf(std::move(*row));
  }
};

class List {
 public:
  explicit List(const Source& source) : source_(source), tap_(source.tap), config_(source.config) {}

  std::vector<Retapping> Build() {
    AddTaps();
    AddSideBySide();
    if (config_) {
      AddScaled();
      AddRope();
      AddNorm();
      AddHeadOrders();
    }
    AddTransposed();
    AddRounded();
    return std::move(list_);
  }

 private:
  void Add(std::string text, std::function<std::optional<Facts>(int, size_t)> make) {
    list_.push_back({std::move(text), list_.empty(), false, std::move(make)});
  }

  // A function of the whole row of a tap.
  void AddOfRow(const std::string& text, Tap tap, MakeRow make) {
    Add(text, [source = source_, tap, make](int layer, size_t token) -> std::optional<Facts> {
      const auto row = source.TakeRow(tap, layer, token);
      if (!row) return std::nullopt;
      return FactsOf(make(*row, token));
    });
  }

  void AddTaps() {
    for (size_t t = 0; t <= Taps().size(); ++t) {
      const Tap other = t == 0 ? tap_ : static_cast<Tap>(t - 1);  // itself first
      if (t > 0 && other == tap_) continue;
      const TapInfo& info = InfoOf(other);
      Add(fmt::format("our `{}` ({})", info.name, info.meaning),
          [source = source_, other](int layer, size_t token) {
            return source.Take(other, layer, token);
          });
    }
    if (!InfoOf(tap_).per_layer) return;
    for (const int shift : {-1, 1})
      Add(fmt::format("our `{}` of the layer {}", InfoOf(tap_).name,
                      shift < 0 ? "before" : "after"),
          [source = source_, shift](int layer, size_t token) {
            return source.Take(source.tap, layer + shift, token);
          });
  }

  void AddSideBySide() {
    struct Triple {
      Tap q, k, v;
      const char* what;
    };
    for (const Triple& triple : {Triple{Tap::q_proj, Tap::k_proj, Tap::v_proj, "before the bias"},
                                 Triple{Tap::q_rope, Tap::k_rope, Tap::v_bias, "after RoPE"}})
      Add(fmt::format("our `{}|{}|{}` ({})", InfoOf(triple.q).name, InfoOf(triple.k).name,
                      InfoOf(triple.v).name, triple.what),
          [source = source_, triple](int layer, size_t token) {
            return source.SideBySide({triple.q, triple.k, triple.v}, layer, token);
          });
  }

  bool IsQuery() const { return tap_ == Tap::q_proj || tap_ == Tap::q_bias || tap_ == Tap::q_rope; }
  bool HasHeads() const {
    return IsQuery() || tap_ == Tap::k_proj || tap_ == Tap::k_bias || tap_ == Tap::k_rope ||
           tap_ == Tap::v_proj || tap_ == Tap::v_bias || tap_ == Tap::attn_ctx;
  }

  void AddScaled() {
    if (!IsQuery()) return;
    const double factor = 1 / std::sqrt(static_cast<double>(config_->head_dim));
    for (const Tap tap : {Tap::q_proj, Tap::q_bias, Tap::q_rope})
      Add(fmt::format("our `{}` / sqrt(head_dim)", InfoOf(tap).name),
          [source = source_, tap, factor](int layer, size_t token) {
            auto facts = source.Take(tap, layer, token);
            if (facts) Scale(*facts, factor);
            return facts;
          });
  }

  static void Scale(Facts& facts, double factor) {
    Figures& f = facts.figures;
    for (auto* figure : {&f.min, &f.max, &f.mean, &f.std, &f.rms, &f.absmax, &f.l2, &f.sum})
      if (*figure) *figure = Figure{(*figure)->value * factor, (*figure)->rounding * factor};
    for (double& x : facts.row) x *= factor;
    for (auto& [channel, x] : facts.values) x = {x.value * factor, x.rounding * factor};
    facts.sketch.reset();
  }

  void AddRope() {
    for (const auto& [rope, before] :
         {std::pair(Tap::q_rope, Tap::q_bias), {Tap::k_rope, Tap::k_bias}}) {
      if (tap_ != rope) continue;
      const Qwen2Config c = *config_;
      AddOfRow(fmt::format("our `{}` rotated in interleaved pairs (2i, 2i+1)", InfoOf(before).name),
               before,
               [c](const Row& x, size_t token) { return Rotate(x, c, token, true, false); });
      AddOfRow(fmt::format("our `{}` rotated by float32 angles", InfoOf(before).name), before,
               [c](const Row& x, size_t token) { return Rotate(x, c, token, false, true); });
    }
  }

  static Row Rotate(const Row& x, const Qwen2Config& c, size_t token, bool interleaved,
                    bool float_angles) {
    const size_t d = c.head_dim, half = d / 2;
    std::vector<double> cos(half), sin(half);
    FillRopeAngles(c.rope_base, d, token, cos.data(), sin.data());
    for (size_t i = 0; float_angles && i < half; ++i) {
      const float power = -2.0f * static_cast<float>(i) / static_cast<float>(d);
      const float angle = static_cast<float>(token) * std::pow(c.rope_base, power);
      cos[i] = std::cos(angle), sin[i] = std::sin(angle);
    }
    Row y(x.size());
    for (size_t head = 0; head + d <= x.size(); head += d)
      for (size_t i = 0; i < half; ++i) {
        const size_t first = head + (interleaved ? 2 * i : i);
        const size_t second = interleaved ? first + 1 : first + half;
        y[first] = x[first] * cos[i] - x[second] * sin[i];
        y[second] = x[second] * cos[i] + x[first] * sin[i];
      }
    return y;
  }

  void AddNorm() {
    if (tap_ != Tap::attn_norm && tap_ != Tap::ffn_norm && tap_ != Tap::final_norm) return;
    Add(fmt::format("our `{}` without the norm's weight", InfoOf(tap_).name),
        [source = source_](int layer, size_t token) { return source.BareNorm(layer, token); });
  }

  // Other orders of the same values, which only the values themselves tell apart.
  void AddHeadOrders() {
    if (source_.figures_only || !HasHeads()) return;
    const size_t d = config_->head_dim;
    const std::string name(InfoOf(tap_).name);
    const auto reorder = [&](const std::string& how, auto index) {
      AddOfRow(fmt::format("our `{}`, {}", name, how), tap_, [d, index](const Row& x, size_t) {
        Row y(x.size());
        for (size_t i = 0; i < x.size(); ++i) y[index(i / d, i % d, x.size() / d, d)] = x[i];
        return y;
      });
    };
    reorder("each RoPE pair side by side", [](size_t head, size_t i, size_t, size_t width) {
      const size_t half = width / 2;
      return head * width + (i < half ? 2 * i : 2 * (i - half) + 1);
    });
    reorder("heads in reverse order", [](size_t head, size_t i, size_t heads, size_t width) {
      return (heads - 1 - head) * width + i;
    });
    reorder("as [dim, head] instead of [head, dim]",
            [](size_t head, size_t i, size_t heads, size_t) { return i * heads + head; });
  }

  // The whole tensor stored as [channel, token].
  void AddTransposed() {
    Add(fmt::format("our `{}` as [channel, token] instead of [token, channel]", InfoOf(tap_).name),
        [source = source_](int layer, size_t token) -> std::optional<Facts> {
          const auto first = source.TakeRow(source.tap, layer, 0);
          if (!first) return std::nullopt;
          std::vector<Row> rows = {*first};
          while (const auto row = source.TakeRow(source.tap, layer, rows.size()))
            rows.push_back(*row);
          const size_t n = first->size(), tokens = rows.size();
          if (tokens < 2 || token >= tokens) return std::nullopt;
          Row y(n);
          for (size_t i = 0; i < n; ++i) {
            const size_t flat = token * n + i;
            y[i] = rows[flat % tokens][flat / tokens];
          }
          return FactsOf(std::move(y));
        });
    list_.back().same_pool = true;
  }

  void AddRounded() {
    const auto add = [&](const char* type, auto round) {
      AddOfRow(fmt::format("our `{}` rounded to {}", InfoOf(tap_).name, type), tap_,
               [round](const Row& x, size_t) {
                 Row y(x.size());
                 for (size_t i = 0; i < x.size(); ++i) y[i] = round(static_cast<float>(x[i]));
                 return y;
               });
    };
    add("f16", [](float x) { return HalfToFloat(FloatToHalf(x)); });
    add("bf16", [](float x) { return std::bit_cast<float>(RoundedToBf16(x)); });
  }

  const Source source_;
  const Tap tap_;
  const Qwen2Config* const config_;
  std::vector<Retapping> list_;
};

}  // namespace

std::vector<Retapping> RetappingsOf(Tap tap, const RunRecord& ours, const Qwen2Config* config,
                                    bool figures_only) {
  return List({tap, ours, config, figures_only}).Build();
}

}  // namespace lab
