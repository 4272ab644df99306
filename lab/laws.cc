#include "lab/laws.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "lab/facts.h"

namespace lab {
namespace {

using Row = std::vector<double>;

constexpr double kHalfUlp = 0x1p-24;

// Keeps the worst of what is added.
class Worst {
 public:
  explicit Worst(LawCheck check) : check_(check) {}
  void Add(double error, double allowed, size_t channel) {
    LawCheck next = check_;
    next.error = error, next.allowed = allowed, next.channel = channel;
    if (first_ || !(next.ratio() <= check_.ratio())) check_ = next;
    first_ = false;
  }
  const LawCheck& check() const { return check_; }

 private:
  LawCheck check_;
  bool first_ = true;
};

class LawChecker {
 public:
  explicit LawChecker(const RunRecord& run) : run_(run), arithmetic_(run.header.arithmetic) {}

  std::vector<LawCheck> Run() {
    for (const auto& [place, record] : run_.tokens) {
      place_ = place;
      pooled_ = false;
      OwnFigures(record.figures);
      CheckPlace();
    }
    for (const auto& [key, record] : run_.pooled) {
      place_ = {key.second, key.first, 0};
      pooled_ = true;
      OwnFigures(record.figures);
      CheckFigures();
    }
    return std::move(checks_);
  }

 private:
  // The largest values of the tokens so far.
  struct SoFar {
    int layer = kNoLayer;
    size_t tokens = 0;
    std::vector<double> largest;
  };

  // --- access ---

  const TokenRecord* Find(Tap tap, int layer, size_t token) const {
    const auto it = run_.tokens.find({tap, layer, token});
    return it == run_.tokens.end() ? nullptr : &it->second;
  }
  std::optional<Row> RowOf(Tap tap, int layer, size_t token) const {
    const TokenRecord* record = Find(tap, layer, token);
    if (!record || !record->row) return std::nullopt;
    return record->row->Read();
  }
  std::optional<Row> RowOf(Tap tap) const { return RowOf(tap, place_.layer, place_.token); }
  // Figures of a tap at the place at hand: of its token, or pooled over the same tokens.
  std::optional<Figures> FiguresAt(Tap tap, int layer) const {
    std::optional<Figures> found;
    if (pooled_) {
      const auto it = run_.pooled.find({layer, tap});
      const auto own = run_.pooled.find({place_.layer, place_.tap});
      if (it != run_.pooled.end() && it->second.tokens == own->second.tokens)
        found = it->second.figures;
    } else if (const TokenRecord* record = Find(tap, layer, place_.token)) {
      found = record->figures;
    }
    if (found) {
      if (run_.header.std_kind == StdKind::sample)
        ConvertStd(*found, StdKind::sample, StdKind::population);
      Complete(*found, run_.header.std_kind ? std::optional(StdKind::population) : std::nullopt);
    }
    return found;
  }
  std::optional<Figures> FiguresAt(Tap tap) const { return FiguresAt(tap, place_.layer); }

  // What a tap adds to: the layer's input.
  std::pair<Tap, int> InputOfLayer() const {
    if (place_.layer == 0) return {Tap::embedding, kNoLayer};
    return {Tap::layer_out, place_.layer - 1};
  }
  StoredType TypeOf() const {
    const TokenRecord* record = Find(place_.tap, place_.layer, place_.token);
    return record && record->row ? record->row->type : StoredType::f32;
  }
  LawCheck Blank(std::string_view law, bool by_values) const {
    return {law, place_, pooled_, 0, 0, 0, by_values};
  }
  double Rounded(double x) const {
    return arithmetic_ == StoredType::f32 ? static_cast<float>(x) : x;
  }

  // --- of values ---

  void CheckPlace() {
    bool by_values = false;
    switch (place_.tap) {
      case Tap::attn_residual: {
        const auto [tap, layer] = InputOfLayer();
        by_values = Elementwise("attn_residual = input + attn_out", RowOf(tap, layer, place_.token),
                                RowOf(Tap::attn_out), [](double a, double b) { return a + b; });
        break;
      }
      case Tap::layer_out:
        by_values = Elementwise("layer_out = attn_residual + ffn_out", RowOf(Tap::attn_residual),
                                RowOf(Tap::ffn_out), [](double a, double b) { return a + b; });
        break;
      case Tap::ffn_swiglu:
        by_values = Elementwise("ffn_swiglu = ffn_silu * ffn_up", RowOf(Tap::ffn_silu),
                                RowOf(Tap::ffn_up), [](double a, double b) { return a * b; });
        break;
      case Tap::ffn_silu:
        by_values = Silu();
        break;
      case Tap::q_rope:
        by_values = PairNorms("q_rope keeps the length of pairs", Tap::q_bias);
        break;
      case Tap::k_rope:
        by_values = PairNorms("k_rope keeps the length of pairs", Tap::k_bias);
        break;
      case Tap::attn_norm: {
        const auto [tap, layer] = InputOfLayer();
        by_values = OneWeight("attn_norm is its input / rms, times one weight", tap, layer);
        break;
      }
      case Tap::ffn_norm:
        by_values = OneWeight("ffn_norm is its input / rms, times one weight", Tap::attn_residual,
                              place_.layer);
        break;
      case Tap::final_norm:
        if (const auto layer = LastLayer())
          by_values =
              OneWeight("final_norm is its input / rms, times one weight", Tap::layer_out, *layer);
        break;
      case Tap::attn_ctx:
        by_values = WithinValues();
        break;
      case Tap::qkv:
        by_values = SideBySide();
        break;
      default:
        break;
    }
    if (!by_values) CheckFigures();
  }

  std::optional<int> LastLayer() const {
    if (const auto& layers = run_.header.layers) return static_cast<int>(*layers) - 1;
    for (auto it = run_.tokens.rbegin(); it != run_.tokens.rend(); ++it)
      if (it->first.tap == Tap::layer_out) return it->first.layer;
    return std::nullopt;
  }

  // Exact where it is known how the run computes, else 4 ulp at the size of the operands.
  bool Elementwise(std::string_view law, const std::optional<Row>& a, const std::optional<Row>& b,
                   const std::function<double(double, double)>& op) {
    const auto y = RowOf(place_.tap);
    if (!y || !a || !b || a->size() != y->size() || b->size() != y->size()) return false;
    Worst worst(Blank(law, true));
    const StoredType type = TypeOf();
    for (size_t i = 0; i < y->size(); ++i) {
      const double expected = Rounded(op((*a)[i], (*b)[i]));
      if (!std::isfinite(expected) && !std::isfinite((*y)[i])) continue;
      const double size = std::max({std::abs(expected), std::abs((*a)[i]), std::abs((*b)[i])});
      worst.Add(std::abs((*y)[i] - expected), arithmetic_ ? 0 : 8 * HalfUlp(size, type), i);
    }
    checks_.push_back(worst.check());
    return true;
  }

  bool Silu() {
    const auto y = RowOf(place_.tap), gate = RowOf(Tap::ffn_gate);
    if (!y || !gate || y->size() != gate->size()) return false;
    Worst worst(Blank("ffn_silu = silu(ffn_gate)", true));
    for (size_t i = 0; i < y->size(); ++i) {
      const double x = (*gate)[i], expected = x / (1 + std::exp(-x));
      if (!std::isfinite(expected) && !std::isfinite((*y)[i])) continue;
      // Below -87 a float exp overflows and the result may be zero.
      const double small = x < -87 ? 1e-35 : 0;
      worst.Add(std::abs((*y)[i] - expected),
                8 * HalfUlp(expected, TypeOf()) + 1e-6 * std::abs(expected) + small, i);
    }
    checks_.push_back(worst.check());
    return true;
  }

  bool PairNorms(std::string_view law, Tap before) {
    const auto y = RowOf(place_.tap), x = RowOf(before);
    if (!y || !x || y->size() != x->size()) return false;
    const size_t d = run_.header.head_dim.value_or(0);
    if (d == 0 || x->size() % d) return false;
    Worst worst(Blank(law, true));
    const double u = std::max(kHalfUlp, HalfUlp(1, TypeOf()));
    for (size_t i = 0; i < x->size(); ++i) {
      if (i % d >= d / 2) continue;
      const double was = std::hypot((*x)[i], (*x)[i + d / 2]);
      worst.Add(std::abs(std::hypot((*y)[i], (*y)[i + d / 2]) - was), 4 * u * was, i);
    }
    checks_.push_back(worst.check());
    return true;
  }

  // The weight that token 0 implies must be that of every other token.
  bool OneWeight(std::string_view law, Tap input, int layer) {
    const auto y = RowOf(place_.tap), x = RowOf(input, layer, place_.token);
    const auto y0 = RowOf(place_.tap, place_.layer, 0), x0 = RowOf(input, layer, 0);
    if (!y || !x || !y0 || !x0 || x->size() != y->size() || x0->size() != y->size() ||
        y0->size() != y->size() || place_.token == 0)
      return false;
    const auto n = static_cast<double>(x->size());
    const auto rms = [&](const Row& row) {
      double squares = 0;
      for (const double v : row) squares += v * v;
      return std::sqrt(squares / n + 1e-6);  // eps of qwen2
    };
    const double rms_x = rms(*x), rms_0 = rms(*x0);
    const double u = std::max(kHalfUlp, HalfUlp(1, TypeOf()));
    Worst worst(Blank(law, true));
    for (size_t i = 0; i < x->size(); ++i) {
      if ((*x0)[i] == 0) continue;
      const double weight = (*y0)[i] * rms_0 / (*x0)[i];
      const double expected = (*x)[i] / rms_x * weight;
      worst.Add(std::abs((*y)[i] - expected), 2 * (std::sqrt(n) / 2 + 4) * u * std::abs(expected),
                i);
    }
    checks_.push_back(worst.check());
    return true;
  }

  // How far a mean over the tokens so far can get whose values are at most `largest`: they are
  // rounded to half floats if the KV cache has them, which are subnormal below 6e-5.
  double WithinMean(double largest) const {
    const double n = static_cast<double>(place_.token + 1);
    const double rounding = run_.header.kv == "f32" ? 0 : HalfUlp(largest, StoredType::f16);
    return (largest + rounding) * (1 + (n + 3) * kHalfUlp);
  }

  // Takes the tokens of the layer that are new since the last place, up to the one at hand: places
  // come in the order of tokens.
  template <class Take>
  bool UpToHere(SoFar& so_far, Take take) {
    if (so_far.layer != place_.layer) so_far = {place_.layer, 0, {}};
    for (; so_far.tokens <= place_.token; ++so_far.tokens)
      if (!take(so_far.tokens)) return false;
    return true;
  }

  // A weighted mean of values lies among them: per KV group where head_dim is known.
  bool WithinValues() {
    const auto y = RowOf(place_.tap);
    if (!y || !RowOf(Tap::v_bias)) return false;
    const size_t width = RowOf(Tap::v_bias)->size();
    const size_t d = run_.header.head_dim.value_or(width);
    if (d == 0 || width % d || y->size() % width) return false;
    const size_t group = y->size() / width;                 // query heads for each KV head
    std::vector<double>& largest = values_so_far_.largest;  // by channel of the KV heads
    const bool known = UpToHere(values_so_far_, [&](size_t t) {
      const auto v = RowOf(Tap::v_bias, place_.layer, t);
      if (!v || v->size() != width) return false;
      largest.resize(width);
      for (size_t i = 0; i < width; ++i) largest[i] = std::max(largest[i], std::abs((*v)[i]));
      return true;
    });
    if (!known) return false;
    Worst worst(Blank("|attn_ctx| <= max |v| of its KV group", true));
    for (size_t i = 0; i < y->size(); ++i) {
      const double bound = run_.header.head_dim ? largest[i / d / group * d + i % d]
                                                : *std::max_element(largest.begin(), largest.end());
      worst.Add(std::abs((*y)[i]), WithinMean(bound), i);
    }
    checks_.push_back(worst.check());
    return true;
  }

  bool SideBySide() {
    const auto y = RowOf(place_.tap), q = RowOf(Tap::q_bias), k = RowOf(Tap::k_bias),
               v = RowOf(Tap::v_bias);
    if (!y || !q || !k || !v || q->size() + k->size() + v->size() != y->size()) return false;
    Row parts = *q;
    parts.insert(parts.end(), k->begin(), k->end());
    parts.insert(parts.end(), v->begin(), v->end());
    Worst worst(Blank("qkv = q_bias | k_bias | v_bias", true));
    for (size_t i = 0; i < parts.size(); ++i)
      if (std::isfinite(parts[i]) || std::isfinite((*y)[i]))
        worst.Add(std::abs((*y)[i] - parts[i]), 0, i);
    checks_.push_back(worst.check());
    return true;
  }

  // --- of figures ---

  void Equal(std::string_view law, const Figure& left, const Figure& right, double slack) {
    if (!std::isfinite(left.value) || !std::isfinite(right.value)) return;
    LawCheck check = Blank(law, false);
    check.error = std::abs(left.value - right.value);
    check.allowed = left.rounding + right.rounding + slack;
    checks_.push_back(check);
  }
  void AtMost(std::string_view law, const Figure& left, double bound) {
    if (!std::isfinite(left.value) || !std::isfinite(bound)) return;
    LawCheck check = Blank(law, false);
    check.error = std::max(0.0, left.value - left.rounding);
    check.allowed = bound;
    checks_.push_back(check);
  }

  // What must hold of the figures of any row. The slack is float64's.
  void OwnFigures(Figures f) {
    if (run_.header.std_kind == StdKind::sample)
      ConvertStd(f, StdKind::sample, StdKind::population);
    constexpr double kSlack = 1e-12;
    if (f.mean && f.std && f.rms) {
      const double rms = std::hypot(f.mean->value, f.std->value);
      const double unknown_kind = run_.header.std_kind || !f.n || *f.n < 2
                                      ? 0
                                      : f.std->value / static_cast<double>(2 * *f.n);
      Equal("rms^2 = mean^2 + std^2", *f.rms,
            {rms, f.mean->rounding + f.std->rounding + unknown_kind}, kSlack * rms);
    }
    if (f.absmax && f.min && f.max) {
      const Figure& end = std::abs(f.min->value) > std::abs(f.max->value) ? *f.min : *f.max;
      Equal("absmax = max(|min|, |max|)", *f.absmax, {std::abs(end.value), end.rounding}, 0);
    }
    if (f.rms && f.absmax)
      AtMost("rms <= absmax", *f.rms, f.absmax->value * (1 + kSlack) + f.absmax->rounding);
  }

  void CheckFigures() {
    const auto own = FiguresAt(place_.tap);
    if (!own) return;
    switch (place_.tap) {
      case Tap::attn_residual: {
        const auto [tap, layer] = InputOfLayer();
        MeansAdd("mean(attn_residual) = mean(input) + mean(attn_out)", *own, FiguresAt(tap, layer),
                 FiguresAt(Tap::attn_out));
        break;
      }
      case Tap::layer_out:
        MeansAdd("mean(layer_out) = mean(attn_residual) + mean(ffn_out)", *own,
                 FiguresAt(Tap::attn_residual), FiguresAt(Tap::ffn_out));
        break;
      case Tap::ffn_swiglu:
        ProductBound(*own);
        break;
      case Tap::q_rope:
        NormKept("l2(q_rope) = l2(q_bias)", *own, FiguresAt(Tap::q_bias));
        break;
      case Tap::k_rope:
        NormKept("l2(k_rope) = l2(k_bias)", *own, FiguresAt(Tap::k_bias));
        break;
      case Tap::qkv:
        PartsAdd(*own);
        break;
      case Tap::attn_ctx:
        ContextBound(*own);
        break;
      default:
        break;
    }
  }

  void MeansAdd(std::string_view law, const Figures& sum, const std::optional<Figures>& a,
                const std::optional<Figures>& b) {
    if (!a || !b || !sum.mean || !a->mean || !b->mean) return;
    // Each element of the sum is rounded once.
    const double size = sum.rms ? sum.rms->value : std::abs(sum.mean->value);
    Equal(law, *sum.mean, {a->mean->value + b->mean->value, a->mean->rounding + b->mean->rounding},
          4 * kHalfUlp * size);
  }

  void ProductBound(const Figures& own) {
    const auto silu = FiguresAt(Tap::ffn_silu), up = FiguresAt(Tap::ffn_up);
    if (!silu || !up || !own.absmax || !silu->absmax || !up->absmax) return;
    AtMost("absmax(ffn_swiglu) <= absmax(ffn_silu) absmax(ffn_up)", *own.absmax,
           (silu->absmax->value + silu->absmax->rounding) *
               (up->absmax->value + up->absmax->rounding) * (1 + 4 * kHalfUlp));
  }

  void NormKept(std::string_view law, const Figures& own, const std::optional<Figures>& before) {
    if (before && own.l2 && before->l2)
      Equal(law, *own.l2, *before->l2, 4 * kHalfUlp * own.l2->value);
  }

  void PartsAdd(const Figures& own) {
    const auto q = FiguresAt(Tap::q_bias), k = FiguresAt(Tap::k_bias), v = FiguresAt(Tap::v_bias);
    if (!q || !k || !v || !own.l2 || !q->l2 || !k->l2 || !v->l2) return;
    const double l2 = std::hypot(q->l2->value, k->l2->value, v->l2->value);
    Equal("l2(qkv)^2 = l2(q_bias)^2 + l2(k_bias)^2 + l2(v_bias)^2", *own.l2,
          {l2, q->l2->rounding + k->l2->rounding + v->l2->rounding}, 1e-12 * l2);
  }

  void ContextBound(const Figures& own) {
    if (pooled_ || !own.absmax) return;
    std::vector<double>& largest = figures_so_far_.largest;  // one value
    const bool known = UpToHere(figures_so_far_, [&](size_t t) {
      const TokenRecord* v = Find(Tap::v_bias, place_.layer, t);
      if (!v || !v->figures.absmax) return false;
      largest.resize(1);
      largest[0] = std::max(largest[0], v->figures.absmax->value + v->figures.absmax->rounding);
      return true;
    });
    if (known)
      AtMost("absmax(attn_ctx) <= max absmax(v_bias)", *own.absmax, WithinMean(largest[0]));
  }

  const RunRecord& run_;
  std::optional<StoredType> arithmetic_;
  SoFar values_so_far_, figures_so_far_;
  Place place_ = {};
  bool pooled_ = false;
  std::vector<LawCheck> checks_;
};

}  // namespace

double LawCheck::ratio() const {
  return error == 0 ? 0 : allowed == 0 ? std::numeric_limits<double>::infinity() : error / allowed;
}

std::vector<LawCheck> CheckLaws(const RunRecord& run) {
  return LawChecker(run).Run();
}

}  // namespace lab
