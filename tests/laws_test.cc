// The laws hold in every right run, on values and on figures, and a broken one names its tap.
#include "lab/laws.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "lab/facts.h"
#include "tests/run_util.h"

namespace lab {
namespace {

using Row = std::vector<double>;
constexpr RunContract kF32 = {Contract::f32, KvType::f32}, kQ8 = {Contract::q8, KvType::f16};

std::string Broken(const std::vector<LawCheck>& checks) {
  for (const LawCheck& c : checks)
    if (!c.holds())
      return std::string(c.law) + " at " + TapPath(c.place.tap, c.place.layer) + " token " +
             std::to_string(c.place.token);
  return "";
}

RunRecord WithHeads(RunRecord run) {
  run.header.head_dim = TinyModel().config.head_dim;
  return run;
}

TEST(Laws, HoldInRightRuns) {
  for (const auto& [backend, contract] : {std::pair(Backend::oracle, kF32),
                                          {Backend::oracle, kQ8},
                                          {Backend::ref, kF32},
                                          {Backend::hwy, kQ8}}) {
    const RunRecord run = WithHeads(TinyRun(backend, contract));
    for (const bool values : {true, false}) {
      const auto checks = CheckLaws(values ? run : StatisticsOf(run));
      EXPECT_EQ(Broken(checks), "") << NameOf(backend) << " " << NameOf(contract) << values;
      std::set<std::string_view> laws;
      for (const LawCheck& c : checks) laws.insert(c.law);
      EXPECT_GE(laws.size(), values ? 13u : 10u);
    }
  }
}

// One tap of layer 3, token 2, changed.
RunRecord Spoilt(Tap tap, const std::function<void(Row&)>& change, int layer = 3) {
  RunRecord run = WithHeads(TinyRun(Backend::ref, kF32));
  Row row = run.tokens.at({tap, layer, 2}).row->Read();
  change(row);
  PutRow(run, {tap, layer, 2}, row);
  return run;
}

TEST(Laws, ABrokenOneNamesTheTap) {
  const auto nudge = [](Row& row) { row[5] += 1e-3 * std::abs(row[5]) + 1e-4; };
  const std::pair<Tap, const char*> cases[] = {
      {Tap::attn_norm, "attn_norm is its input / rms, times one weight at L03.attn_norm token 2"},
      {Tap::qkv, "qkv = q_bias | k_bias | v_bias at L03.qkv token 2"},
      {Tap::q_rope, "q_rope keeps the length of pairs at L03.q_rope token 2"},
      {Tap::k_rope, "k_rope keeps the length of pairs at L03.k_rope token 2"},
      {Tap::attn_residual, "attn_residual = input + attn_out at L03.attn_residual token 2"},
      {Tap::ffn_silu, "ffn_silu = silu(ffn_gate) at L03.ffn_silu token 2"},
      {Tap::ffn_swiglu, "ffn_swiglu = ffn_silu * ffn_up at L03.ffn_swiglu token 2"},
      {Tap::ffn_norm, "ffn_norm is its input / rms, times one weight at L03.ffn_norm token 2"},
      {Tap::layer_out, "layer_out = attn_residual + ffn_out at L03.layer_out token 2"}};
  for (const auto& [tap, broken] : cases) EXPECT_EQ(Broken(CheckLaws(Spoilt(tap, nudge))), broken);
  EXPECT_EQ(Broken(CheckLaws(Spoilt(Tap::final_norm, nudge, kNoLayer))),
            "final_norm is its input / rms, times one weight at final_norm token 2");
  EXPECT_EQ(Broken(CheckLaws(Spoilt(Tap::attn_ctx, [](Row& row) { row[5] = 1e4; }))),
            "|attn_ctx| <= max |v| of its KV group at L03.attn_ctx token 2");
}

TEST(Laws, ABrokenValueBehindAnInfiniteOneIsSeen) {
  RunRecord run = Spoilt(Tap::ffn_swiglu, [](Row& row) { row[2] = INFINITY, row[5] *= 1.01; });
  Row up = run.tokens.at({Tap::ffn_up, 3, 2}).row->Read();
  up[2] = INFINITY;
  PutRow(run, {Tap::ffn_up, 3, 2}, up);
  EXPECT_EQ(Broken(CheckLaws(run)), "ffn_swiglu = ffn_silu * ffn_up at L03.ffn_swiglu token 2");
}

TEST(Laws, FiguresAloneSeeMuch) {
  const auto twice = [](Row& row) {
    for (double& x : row) x = 2 * x + 0.1;
  };
  const std::pair<Tap, const char*> cases[] = {
      {Tap::q_rope, "l2(q_rope) = l2(q_bias) at L03.q_rope token 2"},
      {Tap::k_rope, "l2(k_rope) = l2(k_bias) at L03.k_rope token 2"},
      {Tap::attn_residual,
       "mean(attn_residual) = mean(input) + mean(attn_out) at L03.attn_residual token 2"},
      {Tap::layer_out,
       "mean(layer_out) = mean(attn_residual) + mean(ffn_out) at L03.layer_out token 2"},
      {Tap::qkv, "l2(qkv)^2 = l2(q_bias)^2 + l2(k_bias)^2 + l2(v_bias)^2 at L03.qkv token 2"}};
  for (const auto& [tap, broken] : cases)
    EXPECT_EQ(Broken(CheckLaws(StatisticsOf(Spoilt(tap, twice)))), broken);
}

TEST(Laws, FiguresAloneSeeWhatIsTooLarge) {
  const auto huge = [](Row& row) { row[5] = 1e4; };
  const std::pair<Tap, const char*> cases[] = {
      {Tap::ffn_swiglu,
       "absmax(ffn_swiglu) <= absmax(ffn_silu) absmax(ffn_up) at L03.ffn_swiglu "
       "token 2"},
      {Tap::attn_ctx, "absmax(attn_ctx) <= max absmax(v_bias) at L03.attn_ctx token 2"}};
  for (const auto& [tap, broken] : cases)
    EXPECT_EQ(Broken(CheckLaws(StatisticsOf(Spoilt(tap, huge)))), broken);
  RunRecord run = StatisticsOf(TinyRun());
  Figures& f = run.tokens.at({Tap::ffn_up, 1, 0}).figures;
  f.min.reset(), f.max.reset();
  f.absmax->value = 0.9 * f.rms->value;
  EXPECT_EQ(Broken(CheckLaws(run)), "rms <= absmax at L01.ffn_up token 0");
}

TEST(Laws, FiguresOfARowAgreeAmongThemselves) {
  RunRecord run = StatisticsOf(TinyRun());
  run.tokens.at({Tap::ffn_up, 1, 0}).figures.std->value *= 1.1;
  EXPECT_EQ(Broken(CheckLaws(run)), "rms^2 = mean^2 + std^2 at L01.ffn_up token 0");
  run = StatisticsOf(TinyRun());
  run.tokens.at({Tap::ffn_up, 1, 0}).figures.absmax->value *= 1.1;
  EXPECT_EQ(Broken(CheckLaws(run)), "absmax = max(|min|, |max|) at L01.ffn_up token 0");
}

TEST(Laws, OneUlpIsSeenWhereTheArithmeticIsKnown) {
  const auto ulp = [](Row& row) { row[5] = std::nextafterf(static_cast<float>(row[5]), 1e9f); };
  RunRecord run = Spoilt(Tap::ffn_swiglu, ulp);
  EXPECT_EQ(Broken(CheckLaws(run)), "ffn_swiglu = ffn_silu * ffn_up at L03.ffn_swiglu token 2");
  run.header.arithmetic.reset();
  // Values of others are float32 unless they say more.
  run.tokens.at({Tap::ffn_swiglu, 3, 2}).row->type = StoredType::f64;
  EXPECT_NE(Broken(CheckLaws(run)), "") << "in doubles a float's ulp is far too much";
  RunRecord stored = TinyRun(Backend::ref, kF32);
  stored.header.arithmetic.reset();
  EXPECT_EQ(Broken(CheckLaws(stored)), "");
}

TEST(Laws, PooledFiguresObeyThemToo) {
  RunRecord run = StatisticsOf(TinyRun());
  std::map<std::pair<int, Tap>, std::vector<const Figures*>> rows;
  for (const auto& [place, record] : run.tokens)
    rows[{place.layer, place.tap}].push_back(&record.figures);
  for (const auto& [key, figures] : rows) run.pooled[key].figures = PoolFigures(figures);
  run.tokens.clear();
  EXPECT_EQ(Broken(CheckLaws(run)), "");
  auto& figures = run.pooled.at({5, Tap::layer_out}).figures;
  figures.mean->value += 0.1 * figures.rms->value;
  EXPECT_NE(Broken(CheckLaws(run)), "");
}

}  // namespace
}  // namespace lab
