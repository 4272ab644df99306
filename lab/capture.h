#pragma once
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "lab/case.h"
#include "lab/taps.h"
#include "model/qwen2.h"

namespace lab {

/// The taps of an oracle's pass, [token, channel], as computed.
class CapturedTaps : public TapSink<double> {
 public:
  /// Everything.
  CapturedTaps() = default;
  /// What the steps of one layer, of `layers`, and those outside the layers need.
  CapturedTaps(int layer, size_t layers) : layer_(layer), last_(static_cast<int>(layers) - 1) {}
  bool Wants(Tap tap, int layer) const override;
  void OnTap(const TapView<double>& v) override;
  const std::vector<double>& Of(Tap tap, int layer) const;

 private:
  std::optional<int> layer_;
  int last_ = kNoLayer;
  std::map<std::pair<Tap, int>, std::vector<double>> taps_;
};

/// The steps of one layer, or with kNoLayer those outside the layers, in the order of the pass:
/// the inputs of each op, rounded to float. gate_up, silu and swiglu stand beside gate_up_swiglu.
/// input_tap and output_tap name the taps ("ffn_silu, ffn_up"); an input that arises later than the
/// output is that of the layer before. `rows`, `query_tokens`: as in CaptureCases.
std::vector<Case> StepCases(const Qwen2& model, int layer, const CapturedTaps& taps,
                            const std::vector<int32_t>& ids, size_t rows, size_t query_tokens);

/// Whether a step multiplies by a matrix of the model: its contract then decides what its input is
/// rounded to.
bool HasMatrix(Op op);

/// A tap and its layer (kNoLayer outside the layers).
using TapPlace = std::pair<Tap, int>;
/// Where a step of `layer` (as StepCases made it, of a model of `layers`) reads and writes: its
/// input_tap and output_tap.
std::vector<TapPlace> StepInputs(const Case& c, int layer, size_t layers);
std::vector<TapPlace> StepOutputs(const Case& c, int layer);

/// The matrices of one layer as cases without inputs, on the model's own bytes: matvec, gate_up,
/// gate_up_swiglu, down_proj.
std::vector<Case> WeightCases(const Qwen2& model, int layer);

/// The inputs of every op of one layer, and of the ops outside the layers, as the f32 oracle sees
/// them while it runs `ids`, rounded to float. Matrices keep `rows` rows spread evenly over the
/// whole (0: all), always with all columns. `query_tokens`: gqa_attention keeps only that many
/// queries, spread over the prompt and ending with the last (0: all), against all keys they can
/// see.
std::vector<Case> CaptureCases(const Qwen2& model, size_t layer, const std::vector<int32_t>& ids,
                               size_t rows, size_t query_tokens, int threads);

}  // namespace lab
