#include "lab/composed.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <tuple>

#include "lab/trace.h"

namespace lab {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kFactor = 4;
constexpr size_t kChunk = 8;

// The values of every tap and token of a chunk.
class KeptTaps : public TapSink<double> {
 public:
  bool Wants(Tap, int) const override { return true; }
  void OnTap(const TapView<double>& v) override {
    for (size_t t = 0; t < v.tokens; ++t) {
      const double* row = v.values + t * v.stride;
      rows_[{v.tap, v.layer, v.first_token + t}].assign(row, row + v.n);
    }
  }
  const std::map<Place, std::vector<double>>& rows() const { return rows_; }
  const std::vector<double>& LogitsOf(size_t token) const {
    return rows_.at({Tap::lm_head, kNoLayer, token});
  }

 private:
  std::map<Place, std::vector<double>> rows_;
};

// What TapVerdict says of an error. As it stands: nothing has been compared.
struct Distance {
  size_t compared = 0, channel = 0;
  double l2 = kInfinity;
};

template <class T>
Distance DistanceOf(const T* got, const std::vector<double>& expected) {
  Distance d;
  double largest = -1, sum = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const bool finite = std::isfinite(expected[i]);
    if (!finite && !std::isfinite(got[i])) continue;
    const double difference =
        finite && std::isfinite(got[i]) ? std::abs(got[i] - expected[i]) : kInfinity;
    sum += difference * difference;
    ++d.compared;
    if (difference > largest) largest = difference, d.channel = i;
  }
  if (d.compared > 0) d.l2 = std::sqrt(sum);
  return d;
}

template <class T>
double LogSumExp(const T* x, size_t n) {
  const double top = *std::max_element(x, x + n);
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += std::exp(x[i] - top);
  return top + std::log(sum);
}

}  // namespace

template <class T>
LogitFigures FiguresOf(const T* x, const std::vector<double>& exact) {
  LogitFigures f;
  const size_t n = exact.size();
  const double log_x = LogSumExp(x, n), log_exact = LogSumExp(exact.data(), n);
  double error = 0, energy = 0;
  for (size_t i = 0; i < n; ++i) {
    const double d = x[i] - exact[i];
    error += d * d;
    energy += exact[i] * exact[i];
    f.largest = std::max(f.largest, std::abs(d));
    f.kl += std::exp(exact[i] - log_exact) * ((exact[i] - log_exact) - (x[i] - log_x));
  }
  f.rse = error / energy;
  const TopRecord top = ComputeTop(x, n, 0, 2);
  f.argmax = top.ids[0];
  f.margin = top.logits[0] - top.logits[1];
  return f;
}

template LogitFigures FiguresOf(const float*, const std::vector<double>&);
template LogitFigures FiguresOf(const double*, const std::vector<double>&);

namespace {

// Measures a float32 pass as it runs, so that its values need not be kept.
class Measure : public TapSink<float> {
 public:
  Measure(const KeptTaps& oracle, const KeptTaps& exact) : oracle_(oracle), exact_(exact) {}
  bool Wants(Tap, int) const override { return true; }
  void OnTap(const TapView<float>& v) override {
    for (size_t t = 0; t < v.tokens; ++t) {
      const Place place = {v.tap, v.layer, v.first_token + t};
      const float* row = v.values + t * v.stride;
      const auto bad = std::find_if_not(row, row + v.n, [](float x) { return std::isfinite(x); });
      if (bad != row + v.n && !not_finite) not_finite = {place, static_cast<size_t>(bad - row)};
      const auto expected = oracle_.rows().find(place);
      if (expected == oracle_.rows().end() || expected->second.size() != v.n) continue;
      distances_[place] = DistanceOf(row, expected->second);
      if (v.tap == Tap::lm_head)
        logits_[place.token] = FiguresOf(row, exact_.LogitsOf(place.token));
    }
  }
  Distance DistanceAt(const Place& place) const {
    const auto it = distances_.find(place);
    return it == distances_.end() ? Distance() : it->second;
  }
  LogitFigures LogitsOf(size_t token) const {
    const auto it = logits_.find(token);
    return it == logits_.end() ? LogitFigures() : it->second;
  }
  std::optional<std::pair<Place, size_t>> not_finite;

 private:
  const KeptTaps &oracle_, &exact_;
  std::map<Place, Distance> distances_;
  std::map<size_t, LogitFigures> logits_;
};

void Say(const ComposedOptions& options, const std::string& what) {
  if (options.progress) options.progress(what);
}

class Runner {
 public:
  Runner(const Qwen2& model, const ComposedOptions& options, const MakeCandidate& make,
         size_t capacity)
      : options_(options),
        exact_(model, {Backend::oracle, Contract::f32}, KvType::f32, options.threads, capacity),
        yardstick_(model, {Backend::ref, Contract::f32}, KvType::f32, options.threads, capacity) {
    for (const Contract contract : options.contracts) {
      const KvType kv = options.kv.value_or(DefaultKv(contract));
      Side side = {nullptr, make(contract, kv, capacity), {contract, kv, {}, {}, {}}};
      if (contract != Contract::f32 || kv != KvType::f32)
        side.oracle = std::make_unique<Forward<double>>(model, RowSet(Backend::oracle, contract),
                                                        kv, options.threads, capacity);
      sides_.push_back(std::move(side));
    }
  }

  void RunChunk(std::span<const int32_t> ids) {
    const auto say = [&](std::string_view contract, const char* pass) {
      Say(options_, fmt::format("tokens {}-{}: {} {}", exact_.position(),
                                exact_.position() + ids.size() - 1, contract, pass));
    };
    KeptTaps exact;
    say("f32", "oracle");
    exact_.Run(ids, &exact);
    Measure yardstick(exact, exact);
    say("f32", "yardstick");
    yardstick_.Run(ids, &yardstick);
    for (Side& side : sides_) {
      KeptTaps own;
      say(NameOf(side.result.contract), "oracle");
      if (side.oracle) side.oracle->Run(ids, &own);
      const KeptTaps& oracle = side.oracle ? own : exact;
      Measure candidate(oracle, exact);
      say(NameOf(side.result.contract), "candidate");
      side.candidate(ids, candidate);
      Judge(exact, yardstick, oracle, candidate, side.result);
    }
  }

  std::vector<ContractResult> TakeResults() {
    std::vector<ContractResult> results;
    for (Side& side : sides_) results.push_back(std::move(side.result));
    return results;
  }

 private:
  // One contract. Its oracle is null where oracle_f32 serves.
  struct Side {
    std::unique_ptr<Forward<double>> oracle;
    CandidatePass candidate;
    ContractResult result;
  };

  static void Judge(const KeptTaps& exact, const Measure& yardstick, const KeptTaps& oracle,
                    const Measure& candidate, ContractResult& result) {
    for (const auto& [place, values] : oracle.rows()) {
      const double method = DistanceOf(values.data(), exact.rows().at(place)).l2;
      const double floor = yardstick.DistanceAt(place).l2;
      const Distance error = candidate.DistanceAt(place);
      result.taps.push_back(
          {place, error.compared, error.channel, error.l2, kFactor * std::max(method, floor)});
      if (place.tap != Tap::lm_head) continue;
      const LogitFigures own = FiguresOf(values.data(), exact.LogitsOf(place.token));
      result.logits.push_back({candidate.LogitsOf(place.token), own,
                               &oracle == &exact ? yardstick.LogitsOf(place.token) : own});
    }
    if (!result.not_finite) result.not_finite = candidate.not_finite;
  }

  const ComposedOptions& options_;
  Forward<double> exact_;
  Forward<float> yardstick_;
  std::vector<Side> sides_;
};

}  // namespace

bool TapVerdict::pass() const {
  return compared > 0 && std::isfinite(allowed) && error <= allowed;
}

double TapVerdict::ratio() const {
  if (compared == 0 || !std::isfinite(allowed)) return kInfinity;
  return error == 0 && allowed == 0 ? 0 : error / allowed;
}

TokenStatus TokenLogits::status() const {
  if (candidate.argmax == oracle.argmax) return TokenStatus::same;
  return oracle.margin <= 2 * baseline.largest ? TokenStatus::tie : TokenStatus::fail;
}

MakeCandidate CandidatesOf(const Qwen2& model, Backend backend, int threads,
                           const std::vector<std::string>& use, size_t prompt_tokens) {
  return [=, &model](Contract contract, KvType kv, size_t capacity) {
    RowSet rows(backend, contract);
    rows.Use(ParseUse(use, contract, model.config.layers));
    auto forward = std::make_shared<Forward<float>>(model, std::move(rows), kv, threads, capacity);
    return [=](std::span<const int32_t> ids, TapSink<float>& sink) {
      for (size_t done = 0, n = 0; done < ids.size(); done += n) {
        const size_t position = forward->position();
        n = position < prompt_tokens ? std::min(prompt_tokens - position, ids.size() - done) : 1;
        forward->Run(ids.subspan(done, n), &sink);
      }
    };
  };
}

std::vector<int32_t> ContinueGreedily(const Qwen2& model, std::span<const int32_t> prompt, size_t n,
                                      const ComposedOptions& options) {
  std::vector<int32_t> ids(prompt.begin(), prompt.end());
  Forward<double> forward(model, {Backend::oracle, Contract::f32}, KvType::f32, options.threads,
                          prompt.size() + n);
  for (size_t run = 0; ids.size() < prompt.size() + n; run = forward.position()) {
    Say(options, fmt::format("generating token {} of {}", ids.size() - prompt.size() + 1, n));
    forward.Run(std::span(ids).subspan(run), nullptr);
    const auto logits = forward.logits();
    ids.push_back(
        static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
  }
  return ids;
}

std::vector<ContractResult> RunComposed(const Qwen2& model, std::span<const int32_t> ids,
                                        const ComposedOptions& options, const MakeCandidate& make) {
  Runner runner(model, options, make, ids.size());
  for (size_t done = 0; done < ids.size(); done += kChunk)
    runner.RunChunk(ids.subspan(done, std::min(kChunk, ids.size() - done)));
  return runner.TakeResults();
}

}  // namespace lab
