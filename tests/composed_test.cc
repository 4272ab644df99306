// The judge of whole passes is judged: right candidates pass, and whatever is spoilt is named.
#include "lab/composed.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "lab/check_forward.h"
#include "lab/error.h"
#include "tests/golden.h"
#include "tests/test_util.h"

namespace lab {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

const Qwen2& Tiny() {
  static const Qwen2 model = OpenModel("tiny");
  return model;
}

// Ten: one chunk and the beginning of a second.
const std::vector<int32_t> kIds = {87, 104, 97, 300, 5, 32, 400, 401, 12, 33};
const size_t kPlaces = (3 + 20 * 28) * kIds.size();

ComposedOptions Only(Contract contract) {
  ComposedOptions options;
  options.contracts = {contract};
  return options;
}

// Changes one row of a candidate's taps before anybody sees it. An empty row is withheld.
class Spoiler : public TapSink<float> {
 public:
  using Edit = std::function<void(std::vector<float>& row)>;
  Spoiler(TapSink<float>& sink, const Place& place, const Edit& edit)
      : sink_(sink), place_(place), edit_(edit) {}
  bool Wants(Tap tap, int layer) const override { return sink_.Wants(tap, layer); }
  void OnTap(const TapView<float>& v) override {
    for (size_t t = 0; t < v.tokens; ++t) {
      std::vector<float> row(v.values + t * v.stride, v.values + t * v.stride + v.n);
      if (Place{v.tap, v.layer, v.first_token + t} == place_) edit_(row);
      if (row.empty()) continue;
      sink_.OnTap({v.tap, v.layer, v.first_token + t, 1, row.size(), row.size(), row.data()});
    }
  }

 private:
  TapSink<float>& sink_;
  Place place_;
  Edit edit_;
};

ContractResult RunSpoilt(Contract contract, const Place& place, const Spoiler::Edit& edit) {
  const MakeCandidate right = CandidatesOf(Tiny(), Backend::hwy, 1);
  const MakeCandidate spoilt = [&](Contract c, KvType kv, size_t capacity) -> CandidatePass {
    return [=, pass = right(c, kv, capacity)](std::span<const int32_t> ids, TapSink<float>& sink) {
      Spoiler spoiler(sink, place, edit);
      pass(ids, spoiler);
    };
  };
  return RunComposed(Tiny(), kIds, Only(contract), spoilt).at(0);
}

std::vector<TapVerdict> Failures(const ContractResult& r) {
  std::vector<TapVerdict> failures;
  for (const TapVerdict& v : r.taps)
    if (!v.pass()) failures.push_back(v);
  return failures;
}

std::string Name(const Place& p) {
  return fmt::format("{} token {}", TapPath(p.tap, p.layer), p.token);
}

TEST(Composed, RightCandidatesPassEverywhere) {
  for (const Backend backend : {Backend::ref, Backend::hwy}) {
    const auto results =
        RunComposed(Tiny(), kIds, ComposedOptions(), CandidatesOf(Tiny(), backend, 2));
    ASSERT_EQ(results.size(), 3u);
    for (const ContractResult& r : results) {
      EXPECT_EQ(r.taps.size(), kPlaces);
      EXPECT_EQ(r.logits.size(), kIds.size());
      EXPECT_EQ(r.kv, DefaultKv(r.contract));
      EXPECT_FALSE(r.not_finite);
      for (const TapVerdict& v : r.taps) {
        EXPECT_TRUE(v.pass()) << NameOf(r.contract) << " " << Name(v.place) << " " << v.ratio();
        EXPECT_GT(v.compared, 0u);
      }
    }
    EXPECT_EQ(ComposedExitCode(results, 3), kPass);
  }
}

// A mutant in one layer fails the whole pass, from that layer on.
TEST(Composed, RulesOfUseReachTheCandidate) {
  const auto results = RunComposed(Tiny(), kIds, Only(Contract::f32),
                                   CandidatesOf(Tiny(), Backend::hwy, 1, {"silu@5=mutant:gelu"}));
  const auto failures = Failures(results[0]);
  ASSERT_FALSE(failures.empty());
  EXPECT_EQ(Name(failures[0].place), "L05.ffn_silu token 0");
}

// Under f32 the yardstick as its own candidate has a quarter of what is allowed.
TEST(Composed, TheYardstickDefinesTheMeasure) {
  const auto results =
      RunComposed(Tiny(), kIds, Only(Contract::f32), CandidatesOf(Tiny(), Backend::ref, 1));
  size_t compared = 0;
  for (const TapVerdict& v : results[0].taps) {
    EXPECT_EQ(v.error * 4, v.allowed) << Name(v.place);
    EXPECT_EQ(v.allowed > 0, v.place.tap != Tap::embedding) << Name(v.place);
    compared += v.compared;
  }
  EXPECT_GT(compared, kPlaces * 100);
  for (const TokenLogits& l : results[0].logits) {
    EXPECT_GT(l.candidate.rse, 0);
    EXPECT_EQ(l.candidate.rse, l.baseline.rse);
    EXPECT_EQ(l.oracle.rse, 0);
  }
}

// Under a rounding contract: four times the distance of its oracle from that of f32, neither more
// nor less, whatever the candidate.
TEST(Composed, TheLimitIsFourTimesTheMethodError) {
  const Place place = {Tap::ffn_out, 9, 8};
  BitRecorder<double> exact, oracle;
  Forward<double>(Tiny(), {Backend::oracle, Contract::f32}, KvType::f32, 1, kIds.size())
      .Run(kIds, &exact);
  Forward<double>(Tiny(), {Backend::oracle, Contract::q8}, KvType::f16, 1, kIds.size())
      .Run(kIds, &oracle);
  const auto& right = oracle.values.at({place.tap, place.layer, place.token});
  const auto& method = exact.values.at({place.tap, place.layer, place.token});
  double square = 0;
  for (size_t i = 0; i < right.size(); ++i) square += std::pow(right[i] - method[i], 2);
  for (const double times : {3.99, 4.01}) {
    const ContractResult r = RunSpoilt(Contract::q8, place, [&](std::vector<float>& row) {
      for (size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(right[i]);
      row[17] += static_cast<float>(times * std::sqrt(square));
    });
    const auto failures = Failures(r);
    ASSERT_EQ(failures.size(), times < 4 ? 0u : 1u);
    if (failures.empty()) continue;
    EXPECT_EQ(Name(failures[0].place), "L09.ffn_out token 8");
    EXPECT_EQ(failures[0].channel, 17u);
    EXPECT_NEAR(failures[0].ratio(), times / 4, 1e-5);
  }
}

TEST(Composed, ASpoiltTapIsNamedAlone) {
  using Contracts = std::vector<Contract>;
  const Contracts contracts =  // 50 s each in a sanitizer build, for the same code
      kSanitized ? Contracts{Contract::q16} : Contracts{Contract::f32, Contract::q16, Contract::q8};
  for (const Contract contract : contracts) {
    for (const Place& place :
         {Place{Tap::embedding, kNoLayer, 0}, Place{Tap::q_proj, 0, 1}, Place{Tap::k_rope, 27, 7},
          Place{Tap::ffn_swiglu, 3, 8}, Place{Tap::final_norm, kNoLayer, 9}}) {
      const ContractResult r =
          RunSpoilt(contract, place, [](std::vector<float>& row) { row[5] += 100; });
      const auto failures = Failures(r);
      ASSERT_EQ(failures.size(), 1u) << Name(place);
      EXPECT_EQ(Name(failures[0].place), Name(place));
      EXPECT_EQ(failures[0].channel, 5u);
      EXPECT_EQ(ComposedExitCode({r}, 3), kNumericFailure);
      const std::string report = ComposedToText({r}, 3, false);
      EXPECT_NE(report.find(fmt::format("first failure: {} {}\n", NameOf(contract), Name(place))),
                std::string::npos)
          << report;
    }
  }
}

TEST(Composed, ValuesThatAreNotFiniteAreNamed) {
  for (const float bad : {kNaN, INFINITY, -INFINITY}) {
    const Place place = {Tap::attn_ctx, 4, 2};
    const ContractResult r =
        RunSpoilt(Contract::q16, place, [&](std::vector<float>& row) { row[3] = row[7] = bad; });
    const auto failures = Failures(r);
    ASSERT_EQ(failures.size(), 1u);
    EXPECT_EQ(Name(failures[0].place), Name(place));
    EXPECT_EQ(failures[0].channel, 3u);
    EXPECT_EQ(failures[0].error, kInfinity);
    testing::internal::CaptureStderr();
    EXPECT_EQ(ComposedExitCode({r}, 3), kNonFinite);
    EXPECT_EQ(testing::internal::GetCapturedStderr(),
              "lab: first value that is not finite: q16 L04.attn_ctx token 2 channel 3\n");
  }
}

TEST(Composed, WhatIsMissingOrOfAnotherSizeFails) {
  for (const size_t size : {0, 5}) {
    const Place place = {Tap::ffn_norm, 11, 4};
    const ContractResult r =
        RunSpoilt(Contract::f32, place, [&](std::vector<float>& row) { row.resize(size); });
    const auto failures = Failures(r);
    ASSERT_EQ(failures.size(), 1u);
    EXPECT_EQ(Name(failures[0].place), Name(place));
    EXPECT_EQ(failures[0].compared, 0u);
    EXPECT_EQ(failures[0].error, kInfinity);
    EXPECT_EQ(failures[0].ratio(), kInfinity);
  }
}

TEST(Composed, ASpoiltLogitFailsItsTapAndItsToken) {
  const ContractResult r =
      RunSpoilt(Contract::q8, {Tap::lm_head, kNoLayer, 6}, [](auto& row) { row[123] = 1000; });
  const auto failures = Failures(r);
  ASSERT_EQ(failures.size(), 1u);
  EXPECT_EQ(Name(failures[0].place), "lm_head token 6");
  EXPECT_EQ(failures[0].channel, 123u);
  EXPECT_EQ(r.logits[6].candidate.argmax, 123);
  for (size_t t = 0; t < r.logits.size(); ++t)
    EXPECT_EQ(r.logits[t].status(), t == 6 ? TokenStatus::fail : TokenStatus::same) << t;
  const std::string report = ComposedToText({r}, 7, false);
  EXPECT_NE(report.find("FAIL q8 after t6: token 123 instead of "), std::string::npos) << report;
  EXPECT_NE(report.find("4 argmaxes, 0 ties, 1 failed\n"), std::string::npos) << report;
}

TEST(Composed, LogitFiguresMatchTheirFormulas) {
  const auto results =
      RunComposed(Tiny(), kIds, Only(Contract::q8), CandidatesOf(Tiny(), Backend::hwy, 1));
  BitRecorder<double> exact;
  Forward<double>(Tiny(), {Backend::oracle, Contract::f32}, KvType::f32, 1, kIds.size())
      .Run(kIds, &exact);
  BitRecorder<float> candidate;
  Forward<float>(Tiny(), {Backend::hwy, Contract::q8}, KvType::f16, 1, kIds.size())
      .Run(kIds, &candidate);
  for (const size_t t : {0, 9}) {
    const auto& x = candidate.values.at({Tap::lm_head, kNoLayer, t});
    const auto& y = exact.values.at({Tap::lm_head, kNoLayer, t});
    double error = 0, energy = 0, sum_x = 0, sum_y = 0, kl = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      error += std::pow(x[i] - y[i], 2);
      energy += y[i] * y[i];
      sum_x += std::exp(static_cast<double>(x[i]));
      sum_y += std::exp(y[i]);
    }
    for (size_t i = 0; i < x.size(); ++i) {
      const double p = std::exp(y[i]) / sum_y, q = std::exp(static_cast<double>(x[i])) / sum_x;
      kl += p * std::log(p / q);
    }
    const LogitFigures& f = results[0].logits[t].candidate;
    EXPECT_NEAR(f.rse / (error / energy), 1, 1e-9);
    EXPECT_NEAR(f.kl / kl, 1, 1e-6);
    EXPECT_EQ(f.argmax, std::max_element(x.begin(), x.end()) - x.begin());
  }
}

// The KV type is part of the contract: f16 makes an oracle of its own under f32 too.
TEST(Composed, HalfKvUnderF32HasItsOwnOracle) {
  ComposedOptions options = Only(Contract::f32);
  options.kv = KvType::f16;
  const auto results = RunComposed(Tiny(), kIds, options, CandidatesOf(Tiny(), Backend::hwy, 1));
  EXPECT_TRUE(Failures(results[0]).empty());
  const TokenLogits& last = results[0].logits.back();
  EXPECT_GT(last.oracle.rse, 1e-12);
  EXPECT_EQ(last.baseline.rse, last.oracle.rse);
}

TEST(Composed, TheContinuationIsGreedy) {
  const std::vector<int32_t> prompt = {300, 301, 302, 7};
  const std::vector<int32_t> ids = ContinueGreedily(Tiny(), prompt, 8, {});
  ASSERT_EQ(ids.size(), 12u);
  for (size_t n = 4; n < ids.size(); ++n) {
    Forward<double> fresh(Tiny(), {Backend::oracle, Contract::f32}, KvType::f32, 1, n);
    fresh.Run(std::span(ids).first(n), nullptr);
    const auto logits = fresh.logits();
    EXPECT_EQ(ids[n], std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  EXPECT_EQ(ContinueGreedily(Tiny(), prompt, 0, {}), prompt);
}

TEST(ComposedRule, OfATap) {
  const auto verdict = [](double error, double allowed, size_t compared = 1) {
    return TapVerdict{{Tap::embedding, kNoLayer, 0}, compared, 0, error, allowed};
  };
  EXPECT_TRUE(verdict(0, 0).pass());
  EXPECT_EQ(verdict(0, 0).ratio(), 0);
  EXPECT_TRUE(verdict(1, 1).pass());
  EXPECT_FALSE(verdict(1.0000001, 1).pass());
  EXPECT_FALSE(verdict(1e-300, 0).pass());
  EXPECT_EQ(verdict(1e-300, 0).ratio(), kInfinity);
  EXPECT_FALSE(verdict(kNaN, 1).pass());
  EXPECT_FALSE(verdict(1, kNaN).pass());
  EXPECT_FALSE(verdict(1, kInfinity).pass());
  EXPECT_FALSE(verdict(kInfinity, kInfinity).pass());
  EXPECT_FALSE(verdict(0, 0, 0).pass());
}

TEST(ComposedRule, OfAToken) {
  const auto status = [](int32_t candidate, double margin, double largest) {
    TokenLogits l;
    l.candidate.argmax = candidate;
    l.oracle.argmax = 5;
    l.oracle.margin = margin;
    l.baseline.largest = largest;
    return l.status();
  };
  EXPECT_EQ(status(5, 10, 0), TokenStatus::same);
  EXPECT_EQ(status(6, 2, 1), TokenStatus::tie);
  EXPECT_EQ(status(6, 2.0000001, 1), TokenStatus::fail);
  EXPECT_EQ(status(6, kNaN, 1), TokenStatus::fail);
  EXPECT_EQ(status(-1, 2, kNaN), TokenStatus::fail);
}

TEST(ComposedRule, PlacesAreInTheOrderOfThePass) {
  const Place order[] = {{Tap::embedding, kNoLayer, 3}, {Tap::attn_norm, 0, 0},
                         {Tap::attn_norm, 0, 1},        {Tap::layer_out, 0, 0},
                         {Tap::attn_norm, 27, 0},       {Tap::final_norm, kNoLayer, 0},
                         {Tap::lm_head, kNoLayer, 0}};
  EXPECT_TRUE(std::is_sorted(std::begin(order), std::end(order)));
}

}  // namespace
}  // namespace lab
