#include "lab/step_blame.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "lab/composed.h"
#include "lab/error.h"
#include "lab/names.h"

namespace lab {
namespace {

constexpr std::string_view kMatrices[] = {"q_proj", "k_proj", "v_proj", "o_proj"};

// The residual stream as it enters each layer, and the last layer's output.
class Residuals : public TapSink<float> {
 public:
  bool Wants(Tap tap, int) const override { return tap == Tap::embedding || tap == Tap::layer_out; }
  void OnTap(const TapView<float>& v) override {
    entering_.emplace_back(v.values, v.values + v.tokens * v.n);
  }
  std::span<const float> Entering(size_t layer) const { return entering_[layer]; }

 private:
  std::vector<std::vector<float>> entering_;
};

std::string MatrixOf(const BlamedStep& step) {
  return step.op == Op::matvec ? step.name.substr(step.name.find('.') + 1) : "";
}

// The steps of a pass under `rows`, whatever runs them.
std::vector<BlamedStep> StepsOf(const RowSet& rows, size_t layers) {
  std::vector<BlamedStep> steps;
  const auto add = [&](int layer, Op op, std::string_view name) {
    const std::string prefix = layer == kNoLayer ? "" : fmt::format("L{:02}.", layer);
    steps.push_back({layer, op, prefix + std::string(name), {}, 0, 0});
  };
  add(kNoLayer, Op::embed, "embed");
  for (int layer = 0; layer < static_cast<int>(layers); ++layer) {
    for (const std::string_view name : kMatrices) add(layer, Op::matvec, name);
    std::vector<Op> ops = {Op::rms_norm, Op::rope, Op::gqa_attention, Op::residual_add,
                           Op::down_proj};
    if (rows.Fuses(layer))
      ops.push_back(Op::gate_up_swiglu);
    else
      ops.insert(ops.end(), {Op::gate_up, Op::silu, Op::swiglu});
    for (const Op op : ops) add(layer, op, NameOf(op));
  }
  add(kNoLayer, Op::rms_norm, "rms_norm");
  add(kNoLayer, Op::matvec, "lm_head");
  return steps;
}

UseRule RuleOf(Op op, const BlamedStep& step, const RowUse& use) {
  UseRule rule;
  rule.text = step.name;
  rule.op = op;
  // kNoLayer too is a layer to Covers.
  rule.layers = {{step.layer, step.layer}};
  rule.row = use.row;
  rule.mutant = use.mutant;
  if (op == Op::matvec) rule.matvec = MatrixOf(step);
  rule.forgets_rules = true;
  return rule;
}

// `rows` with one step as `other` runs it, the rounding of its activations included.
RowSet WithStepOf(const RowSet& rows, const RowSet& other, const BlamedStep& step) {
  RowSet mixed = rows;
  std::vector<UseRule> rules = rows.rules();
  const RowUse use = other.For(step.op, step.layer, MatrixOf(step));
  rules.push_back(RuleOf(step.op, step, use));
  if (use.row->contract != Contract::f32)
    rules.push_back(RuleOf(Op::quantize, step, other.Quantizer(use.row->contract, step.layer)));
  mixed.Use(std::move(rules));
  return mixed;
}

// One of the two passes that steps are exchanged between.
class Pass {
 public:
  Pass(const Qwen2& model, const RowSet& rows, std::span<const int32_t> ids,
       const StepBlameOptions& options)
      : model_(model), rows_(rows), ids_(ids), options_(options) {
    const auto begin = std::chrono::steady_clock::now();
    Forward<float> forward = Make(rows);
    forward.Run(ids, &residuals_);
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    logits_.assign(forward.logits().begin(), forward.logits().end());
  }

  const std::vector<double>& logits() const { return logits_; }
  double seconds() const { return seconds_; }

  /// KL from `clean` of this pass with one step as `other` runs it.
  double KlWith(const BlamedStep& step, const RowSet& other,
                const std::vector<double>& clean) const {
    Forward<float> forward = Make(WithStepOf(rows_, other, step));
    if (step.op == Op::embed) {
      forward.Run(ids_, nullptr);
    } else {
      const size_t layer = FirstLayer(step, model_.config.layers);
      forward.Resume(layer, residuals_.Entering(layer), nullptr);
    }
    return FiguresOf(forward.logits().data(), clean).kl;
  }
  static size_t FirstLayer(const BlamedStep& step, size_t layers) {
    if (step.op == Op::embed) return 0;
    return step.layer == kNoLayer ? layers : static_cast<size_t>(step.layer);
  }

 private:
  Forward<float> Make(const RowSet& rows) const {
    return Forward<float>(model_, rows, options_.kv, options_.threads, ids_.size());
  }

  const Qwen2& model_;
  const RowSet& rows_;
  std::span<const int32_t> ids_;
  const StepBlameOptions& options_;
  Residuals residuals_;
  std::vector<double> logits_;
  double seconds_ = 0;
};

// Judges the clean pass as a whole and returns its KL from the oracle.
double CheckClean(const Qwen2& model, std::span<const int32_t> ids,
                  const StepBlameOptions& options) {
  ComposedOptions composed;
  composed.contracts = {Contract::f32};
  composed.kv = options.kv;
  composed.threads = options.threads;
  composed.progress = options.progress;
  const auto results =
      RunComposed(model, ids, composed, CandidatesOf(model, Backend::hwy, options.threads));
  for (const TapVerdict& v : results[0].taps)
    if (!v.pass())
      throw Error(kNumericFailure,
                  fmt::format("the clean pass (hwy f32) is itself wrong at {} token {}; "
                              "'lab bisect --contract f32' finds the step",
                              TapPath(v.place.tap, v.place.layer), v.place.token));
  return results[0].logits.back().candidate.kl;
}

std::vector<BlamedStep> ChosenSteps(const RowSet& clean, const RowSet& candidate, size_t layers,
                                    const StepBlameOptions& options, size_t& same) {
  const GlobList globs(options.ops);
  std::vector<BlamedStep> chosen;
  for (BlamedStep& step : StepsOf(candidate, layers)) {
    const bool in_layers =
        options.layers.empty() ||
        std::any_of(options.layers.begin(), options.layers.end(), [&](auto range) {
          return step.layer >= range.first && step.layer <= range.second;
        });
    if (!in_layers || !(globs.Match(step.name) || globs.Match(NameOf(step.op)))) continue;
    step.use = candidate.For(step.op, step.layer, MatrixOf(step));
    const RowUse other = clean.For(step.op, step.layer, MatrixOf(step));
    if (step.use.row == other.row && step.use.mutant == other.mutant)
      ++same;
    else
      chosen.push_back(std::move(step));
  }
  if (chosen.empty()) return chosen;
  options.shard.Check(chosen.size(), "steps");
  size_t index = 0;
  std::erase_if(chosen, [&](const BlamedStep&) { return !options.shard.Has(index++); });
  return chosen;
}

void LogEstimate(const StepBlame& blame, double seconds, size_t layers,
                 const StepBlameOptions& options) {
  double passes = 0;
  for (const BlamedStep& step : blame.steps)
    passes +=
        1 - static_cast<double>(Pass::FirstLayer(step, layers)) / static_cast<double>(layers + 1);
  if (options.log)
    options.log(fmt::format("{} steps, each exchanged in both passes: about {:.0f} s",
                            blame.steps.size(), std::ceil(2 * passes * seconds)));
}

// NaN is the worst of all.
double Rank(double kl) {
  return std::isnan(kl) ? std::numeric_limits<double>::infinity() : kl;
}

}  // namespace

StepBlame BlameSteps(const Qwen2& model, const RowSet& candidate, std::span<const int32_t> ids,
                     const StepBlameOptions& options) {
  const size_t layers = model.config.layers;
  const RowSet clean_rows(Backend::hwy, Contract::f32);
  StepBlame blame;
  blame.steps = ChosenSteps(clean_rows, candidate, layers, options, blame.same);
  if (blame.steps.empty())
    throw Error(kNotComparable,
                "--blame: no step matches --layers and --ops, or all are those of the "
                "clean pass (hwy f32); give another --backend or --contract, or --use");
  blame.oracle = CheckClean(model, ids, options);
  const Pass clean(model, clean_rows, ids, options), dirty(model, candidate, ids, options);
  blame.candidate = FiguresOf(dirty.logits().data(), clean.logits()).kl;
  LogEstimate(blame, std::max(clean.seconds(), dirty.seconds()), layers, options);
  for (BlamedStep& step : blame.steps) {
    if (options.progress) options.progress(step.name);
    step.alone = clean.KlWith(step, candidate, clean.logits());
    step.repaired = dirty.KlWith(step, clean_rows, clean.logits());
  }
  std::stable_sort(blame.steps.begin(), blame.steps.end(),
                   [](const auto& a, const auto& b) { return Rank(a.alone) > Rank(b.alone); });
  return blame;
}

}  // namespace lab
