#include "lab/bisect.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "lab/error.h"
#include "lab/names.h"
#include "lab/simd_target.h"

namespace lab {
namespace {

// Whether the candidate's pass has such a step at all.
bool IsStep(const RowSet& rows, const Case& c, int layer) {
  switch (c.op) {
    case Op::quantize:
      return rows.contract() != Contract::f32;
    case Op::gate_up_swiglu:
      return rows.Fuses(layer);
    case Op::gate_up:
    case Op::silu:
    case Op::swiglu:
      return !rows.Fuses(layer);
    default:
      return true;
  }
}

bool InLayers(const StepFilter& filter, int layer) {
  return filter.layers.empty() ||
         std::any_of(filter.layers.begin(), filter.layers.end(),
                     [&](auto range) { return layer >= range.first && layer <= range.second; });
}

}  // namespace

// What has become of the oracle's values along the candidate's chain.
class Bisector::Accumulated : public TapSink<float> {
 public:
  explicit Accumulated(const CapturedTaps& oracle) : oracle_(oracle) {}
  bool Wants(Tap, int) const override { return true; }
  void OnTap(const TapView<float>& v) override {
    const std::vector<double>& oracle = oracle_.Of(v.tap, v.layer);
    double& worst = error_[{v.tap, v.layer}];
    for (size_t t = 0; t < v.tokens; ++t) {
      const double* expected = &oracle[(v.first_token + t) * v.n];
      double error = 0, energy = 0;
      for (size_t i = 0; i < v.n; ++i) {
        const double got = v.values[t * v.stride + i];
        if (!std::isfinite(got) && std::isfinite(expected[i]) && !not_finite)
          not_finite =
              fmt::format("{} token {} channel {}", TapPath(v.tap, v.layer), v.first_token + t, i);
        error += (got - expected[i]) * (got - expected[i]);
        energy += expected[i] * expected[i];
      }
      const double relative = error == 0 ? 0 : std::sqrt(error / energy);
      if (!(relative <= worst)) worst = relative;
    }
  }
  std::optional<double> WorstOf(const std::vector<TapPlace>& places) const {
    std::optional<double> worst;
    for (const TapPlace& place : places) {
      const auto it = error_.find(place);
      if (it != error_.end() && (!worst || !(it->second <= *worst))) worst = it->second;
    }
    return worst;
  }
  std::optional<std::string> not_finite;

 private:
  const CapturedTaps& oracle_;
  std::map<TapPlace, double> error_;
};

const StepVerdict* BisectResult::FirstWrong() const {
  const auto it = std::find_if(steps.begin(), steps.end(), [](const auto& s) { return s.wrong(); });
  return it == steps.end() ? nullptr : &*it;
}

size_t BisectResult::wrong() const {
  return static_cast<size_t>(
      std::count_if(steps.begin(), steps.end(), [](const auto& s) { return s.wrong(); }));
}

Bisector::Bisector(const Qwen2& model, Contract contract, KvType kv, std::vector<int32_t> ids,
                   int threads, std::function<void(std::string_view)> progress)
    : model_(model),
      contract_(contract),
      kv_(kv),
      ids_(std::move(ids)),
      threads_(threads),
      progress_(std::move(progress)) {
  Say("oracle");
  Forward<double> oracle(model, RowSet(Backend::oracle, contract), kv, threads, ids_.size());
  oracle.Run(ids_, &oracle_);
}

void Bisector::Say(const std::string& what) const {
  if (progress_) progress_(what);
}

Verdict Bisector::Judge(const Case& c, const RowUse& use) const {
  const bool half_kv = kv_ == KvType::f16 && c.op == Op::gqa_attention;
  const size_t lanes = use.row->backend == Backend::hwy ? CurrentSimdTarget().lanes : 1;
  const auto expected = ExpectedOf(c, use.row->contract, half_kv, threads_);
  return JudgeRow(c, use, expected, half_kv, threads_, 2, lanes);
}

Case Bisector::CaseOf(const StepVerdict& step) const {
  for (Case& c : StepCases(model_, step.layer, oracle_, ids_, 0, 0))
    if (c.name == step.name) return std::move(c);
  throw Error(kInternal, fmt::format("no step {}", step.name));
}

std::vector<StepVerdict> Bisector::StepsOf(const RowSet& rows, const StepFilter& filter,
                                           const Accumulated& accumulated, int layer) const {
  const GlobList ops(filter.ops);
  std::vector<StepVerdict> steps;
  if (!InLayers(filter, layer)) return steps;
  for (const Case& c : StepCases(model_, layer, oracle_, ids_, 1, 0)) {
    if (!IsStep(rows, c, layer) || !Chosen(ops, c)) continue;
    StepVerdict step = {c.name, layer, rows.For(c.op, layer), {}, {}, {}};
    step.accumulated = accumulated.WorstOf(StepOutputs(c, layer));
    const auto before = accumulated.WorstOf(StepInputs(c, layer, model_.config.layers));
    if (step.accumulated && before && *before > 0) step.amplification = *step.accumulated / *before;
    steps.push_back(std::move(step));
  }
  return steps;
}

void Bisector::JudgeSteps(std::vector<StepVerdict>& steps) {
  std::vector<Case> cases;  // of the layer, once a step is not remembered
  for (StepVerdict& step : steps) {
    const auto [it, is_new] = judged_.try_emplace({step.name, step.use.row, step.use.mutant});
    if (is_new) {
      Say(step.name);
      if (cases.empty()) cases = StepCases(model_, step.layer, oracle_, ids_, 0, 0);
      const auto c = std::find_if(cases.begin(), cases.end(),
                                  [&](const Case& each) { return each.name == step.name; });
      it->second = Judge(*c, step.use);
    }
    step.verdict = it->second;
  }
}

BisectResult Bisector::Run(const RowSet& rows, const StepFilter& filter) {
  BisectResult result;
  result.contract = {contract_, kv_};
  Accumulated accumulated(oracle_);
  Say("candidate");
  Forward<float>(model_, rows, kv_, threads_, ids_.size()).Run(ids_, &accumulated);
  result.not_finite = accumulated.not_finite;

  std::vector<StepVerdict> outside = StepsOf(rows, filter, accumulated, kNoLayer);
  JudgeSteps(outside);
  const auto behind = std::find_if(outside.begin(), outside.end(),
                                   [](const auto& s) { return s.use.row->op != Op::embed; });
  result.steps.assign(outside.begin(), behind);
  for (size_t layer = 0; layer < model_.config.layers; ++layer) {
    std::vector<StepVerdict> steps = StepsOf(rows, filter, accumulated, static_cast<int>(layer));
    JudgeSteps(steps);
    std::move(steps.begin(), steps.end(), std::back_inserter(result.steps));
  }
  std::move(behind, outside.end(), std::back_inserter(result.steps));
  if (result.steps.empty())
    throw Error(kNotComparable,
                "no step of this pass matches --layers and --ops; steps are named as in the table "
                "that lab bisect prints without them: q_proj, gate_up_swiglu");
  return result;
}

}  // namespace lab
