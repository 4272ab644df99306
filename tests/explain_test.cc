// --explain: each re-tapping of the list, put into a run on purpose, is named.
#include "lab/explain.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "kernels/half.h"
#include "lab/error.h"
#include "reference/dequant_ref.h"
#include "tests/run_util.h"

namespace lab {
namespace {

constexpr RunContract kF32 = {Contract::f32, KvType::f32};
using Row = std::vector<double>;

Row RowOf(Tap tap, int layer, size_t token) {
  return TinyRun().tokens.at({tap, layer, token}).row->Read();
}

// Their run: one tap in three layers, made of ours.
RunRecord Theirs(Tap tap, const std::function<Row(int layer, size_t token)>& make) {
  RunRecord run;
  for (const int layer : {0, 3, 20})
    for (size_t t = 0; t < kRunIds.size(); ++t) PutRow(run, {tap, layer, t}, make(layer, t));
  return run;
}

Explanation Only(const RunRecord& theirs) {
  const auto all = ExplainRun(TinyRun(), theirs, kF32, &TinyModel().config);
  EXPECT_EQ(all.size(), 1u);
  return all.at(0);
}

void ExpectSays(const Explanation& e, const std::string& text) {
  EXPECT_TRUE(e.fits);
  EXPECT_FALSE(e.as_named);
  EXPECT_NE(e.text.find(text), std::string::npos) << e.text;
}

// On values and on their statistics; both must say so.
void ExpectExplained(const RunRecord& theirs, const std::string& text) {
  const Explanation values = Only(theirs);
  ExpectSays(values, text);
  EXPECT_EQ(values.evidence, Evidence::tensors);
  EXPECT_EQ(values.sureness, Sureness::certain) << values.runner_up;
  const Explanation statistics = Only(StatisticsOf(theirs));
  ExpectSays(statistics, text);
  EXPECT_EQ(statistics.evidence, Evidence::statistics);
  EXPECT_NE(statistics.sureness, Sureness::certain);
}

TEST(Explain, ATapThatIsWhatItIsCalled) {
  const Explanation e =
      Only(Theirs(Tap::ffn_up, [](int l, size_t t) { return RowOf(Tap::ffn_up, l, t); }));
  EXPECT_TRUE(e.fits && e.as_named);
  EXPECT_EQ(e.residual, 0);
}

TEST(Explain, OtherTaps) {
  const std::pair<Tap, Tap> pairs[] = {
      {Tap::q_bias, Tap::q_proj},      {Tap::q_proj, Tap::q_bias},
      {Tap::k_rope, Tap::k_bias},      {Tap::attn_out, Tap::attn_residual},
      {Tap::layer_out, Tap::ffn_out},  {Tap::ffn_gate, Tap::ffn_up},
      {Tap::ffn_swiglu, Tap::ffn_silu}};
  for (const auto& [called, is] : pairs)
    ExpectExplained(Theirs(called, [is = is](int l, size_t t) { return RowOf(is, l, t); }),
                    fmt::format("`{}`", InfoOf(is).name));
}

TEST(Explain, QkvBeforeTheBias) {
  ExpectExplained(Theirs(Tap::qkv,
                         [](int l, size_t t) {
                           Row row;
                           for (const Tap tap : {Tap::q_proj, Tap::k_proj, Tap::v_proj}) {
                             const Row part = RowOf(tap, l, t);
                             row.insert(row.end(), part.begin(), part.end());
                           }
                           return row;
                         }),
                  "`q_proj|k_proj|v_proj` (before the bias)");
}

TEST(Explain, QkvAfterRope) {
  ExpectSays(Only(Theirs(Tap::qkv,
                         [](int l, size_t t) {
                           Row row;
                           for (const Tap tap : {Tap::q_rope, Tap::k_rope, Tap::v_bias}) {
                             const Row part = RowOf(tap, l, t);
                             row.insert(row.end(), part.begin(), part.end());
                           }
                           return row;
                         })),
             "`q_rope|k_rope|v_bias` (after RoPE)");
}

TEST(Explain, LayersOneApart) {
  RunRecord theirs =
      Theirs(Tap::layer_out, [](int l, size_t t) { return RowOf(Tap::layer_out, l + 1, t); });
  ExpectExplained(theirs, "of the layer after");
  theirs = {};
  for (const int layer : {3, 20})
    for (size_t t = 0; t < kRunIds.size(); ++t)
      PutRow(theirs, {Tap::layer_out, layer, t}, RowOf(Tap::layer_out, layer - 1, t));
  ExpectExplained(theirs, "of the layer before");
}

TEST(Explain, ScaledQueries) {
  const double factor = 1 / std::sqrt(static_cast<double>(TinyModel().config.head_dim));
  ExpectExplained(Theirs(Tap::q_rope,
                         [&](int l, size_t t) {
                           Row row = RowOf(Tap::q_rope, l, t);
                           for (double& x : row) x *= factor;
                           return row;
                         }),
                  "`q_rope` / sqrt(head_dim)");
}

// A tap before RoPE, rotated as another program might: by pairs 2i, 2i+1, or by float32 angles.
Row Rotated(Row x, size_t token, bool interleaved, bool float_angles) {
  const Qwen2Config& c = TinyModel().config;
  const size_t half = c.head_dim / 2;
  for (size_t head = 0; head < x.size(); head += c.head_dim)
    for (size_t i = 0; i < half; ++i) {
      const double power = -static_cast<double>(i) / static_cast<double>(half);
      double angle = static_cast<double>(token) * std::pow(static_cast<double>(c.rope_base), power);
      if (float_angles)
        angle = static_cast<float>(token) * std::pow(c.rope_base, static_cast<float>(power));
      const size_t at = head + (interleaved ? 2 * i : i), other = at + (interleaved ? 1 : half);
      const double cos = float_angles ? std::cos(static_cast<float>(angle)) : std::cos(angle);
      const double sin = float_angles ? std::sin(static_cast<float>(angle)) : std::sin(angle);
      const double a = x[at], b = x[other];
      x[at] = a * cos - b * sin;
      x[other] = b * cos + a * sin;
    }
  return x;
}

TEST(Explain, InterleavedRope) {
  for (const auto& [rope, before] :
       {std::pair(Tap::q_rope, Tap::q_bias), {Tap::k_rope, Tap::k_bias}})
    ExpectSays(Only(Theirs(rope,
                           [before = before](int l, size_t t) {
                             return Rotated(RowOf(before, l, t), t, true, false);
                           })),
               "interleaved pairs");
}

// Apart by what float32 costs, so the plain reading fits as well; the closer one is named.
TEST(Explain, Float32Angles) {
  const Explanation e = Only(Theirs(Tap::q_rope, [](int l, size_t t) {
    return Rotated(RowOf(Tap::q_bias, l, t), t, false, true);
  }));
  ExpectSays(e, "rotated by float32 angles");
}

TEST(Explain, NormWithoutItsWeight) {
  ExpectExplained(Theirs(Tap::ffn_norm,
                         [](int l, size_t t) {
                           Row x = RowOf(Tap::attn_residual, l, t);
                           double squares = 0;
                           for (const double v : x) squares += v * v;
                           const double rms = std::sqrt(squares / static_cast<double>(x.size()) +
                                                        TinyModel().config.rms_eps);
                           for (double& v : x) v /= rms;
                           return x;
                         }),
                  "without the norm's weight");
}

TEST(Explain, OtherOrders) {
  const size_t d = TinyModel().config.head_dim;
  ExpectSays(Only(Theirs(Tap::q_bias,
                         [&](int l, size_t t) {
                           const Row x = RowOf(Tap::q_bias, l, t);
                           Row y;
                           for (size_t h = x.size() / d; h-- > 0;)
                             y.insert(y.end(), &x[h * d], &x[h * d] + d);
                           return y;
                         })),
             "heads in reverse order");
  const auto reordered = [&](const std::function<size_t(size_t head, size_t i, size_t heads)>& to) {
    return Only(Theirs(Tap::q_bias, [&](int l, size_t t) {
      const Row x = RowOf(Tap::q_bias, l, t);
      Row y(x.size());
      for (size_t i = 0; i < x.size(); ++i) y[to(i / d, i % d, x.size() / d)] = x[i];
      return y;
    }));
  };
  ExpectSays(reordered([&](size_t head, size_t i, size_t) {
               return head * d + (i < d / 2 ? 2 * i : 2 * (i - d / 2) + 1);
             }),
             "each RoPE pair side by side");
  ExpectSays(reordered([](size_t head, size_t i, size_t heads) { return i * heads + head; }),
             "as [dim, head] instead of [head, dim]");
  const RunRecord transposed = Theirs(Tap::ffn_out, [](int l, size_t t) {
    const size_t n = TinyModel().config.hidden;
    Row y(n);
    for (size_t i = 0; i < n; ++i) {
      const size_t flat = t * n + i;
      y[i] = RowOf(Tap::ffn_out, l, flat % kRunIds.size())[flat / kRunIds.size()];
    }
    return y;
  });
  ExpectExplained(transposed, "[channel, token] instead of [token, channel]");
}

TEST(Explain, RoundedValues) {
  const auto rounded = [](float (*round)(float)) {
    return Only(Theirs(Tap::ffn_up, [&](int l, size_t t) {
      Row row = RowOf(Tap::ffn_up, l, t);
      for (double& x : row) x = round(static_cast<float>(x));
      return row;
    }));
  };
  ExpectSays(rounded([](float x) { return HalfToFloat(FloatToHalf(x)); }), "rounded to f16");
  ExpectSays(rounded([](float x) { return std::bit_cast<float>(RoundedToBf16(x)); }),
             "rounded to bf16");
}

RunRecord Pooled(std::initializer_list<size_t> tokens) {
  RunRecord run;
  for (const int layer : {0, 3, 20}) {
    std::vector<const Figures*> rows;
    for (const size_t t : tokens)
      rows.push_back(&TinyRun().tokens.at({Tap::ffn_swiglu, layer, t}).figures);
    run.pooled[{layer, Tap::ffn_swiglu}].figures = PoolFigures(rows);
  }
  return run;
}

TEST(Explain, TokenSets) {
  Explanation e = Only(Pooled({0, 1, 2, 3, 4}));
  EXPECT_TRUE(e.fits && e.as_named);
  EXPECT_NE(e.text.find("pooled over tokens 0-4"), std::string::npos) << e.text;
  ExpectSays(Only(Pooled({4})), "of token 4 alone");
  ExpectSays(Only(Pooled({0})), "of token 0 alone");
  ExpectSays(Only(Pooled({1, 2, 3, 4})), "pooled over tokens 1-4");
}

TEST(Explain, OtherStd) {
  RunRecord theirs = StatisticsOf(
      Theirs(Tap::ffn_norm, [](int l, size_t t) { return RowOf(Tap::ffn_norm, l, t); }));
  for (auto& [place, record] : theirs.tokens) {
    Figures only;
    only.n = record.figures.n;
    only.mean = record.figures.mean;
    only.std = record.figures.std;
    record.figures = only;
  }
  RunRecord sample = theirs, rms = theirs;
  for (auto& [place, record] : sample.tokens)
    ConvertStd(record.figures, StdKind::population, StdKind::sample);
  for (auto& [place, record] : rms.tokens)
    record.figures.std =
        Figure{std::hypot(record.figures.mean->value, record.figures.std->value), 0};
  ExpectSays(Only(sample), "its std the sample's");
  ExpectSays(Only(rms), "its std the root mean square");
}

TEST(Explain, TwoThingsAtOnce) {
  RunRecord theirs;
  for (const int layer : {0, 3, 20})
    theirs.pooled[{layer, Tap::q_bias}].figures =
        TinyRun().tokens.at({Tap::q_proj, layer, 4}).figures;
  const Explanation e = Only(theirs);
  ExpectSays(e, "`q_proj`");
  ExpectSays(e, "of token 4 alone");
}

TEST(Explain, SomethingElseIsNotExplained) {
  const Explanation e = Only(Theirs(Tap::ffn_up, [](int l, size_t t) {
    Row row = RowOf(Tap::ffn_up, l, t);
    for (size_t i = 0; i < row.size(); i += 2) row[i] *= 1.5;
    return row;
  }));
  EXPECT_FALSE(e.fits);
  EXPECT_EQ(e.sureness, Sureness::possible);
}

}  // namespace
}  // namespace lab
