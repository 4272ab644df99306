#include "lab/local.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "lab/blame.h"
#include "lab/error.h"
#include "lab/run_rows.h"

namespace lab {
namespace {

constexpr size_t kSample = 8;  // steps by which the contract and the KV type are told

// A tap that the run lacks and the oracle computes from taps before it.
struct Bridge {
  std::vector<size_t> tokens;                    // those that can be computed
  std::vector<std::pair<std::string, Op>> over;  // the steps that it takes, in order
  std::vector<double> value, error;  // [token, channel]; error: the tolerance of the value
};

// Where an output of a step lies, and the tokens of it that can be judged.
struct Output {
  TapPlace place;
  std::vector<size_t> tokens;
};

class LocalJudge {
 public:
  LocalJudge(const Qwen2& model, const RunRecord& run, int threads,
             const std::function<void(std::string_view)>& progress)
      : model_(model),
        run_(run),
        rows_(run, model.config),
        tokens_(rows_.tokens()),
        threads_(threads),
        progress_(progress) {
    result_.bits = run.header.arithmetic == StoredType::f32;
  }

  LocalResult Run() {
    TellContract();
    if (!result_.bits) result_.storage = {rows_.Narrowest(), rows_.Narrowest()};
    const int layers = static_cast<int>(model_.config.layers);
    std::vector<LocalStep> outside = StepsOf(kNoLayer);
    const auto behind = std::find_if(outside.begin(), outside.end(),
                                     [](const LocalStep& s) { return s.op != Op::embed; });
    std::move(outside.begin(), behind, std::back_inserter(result_.steps));
    for (int layer = 0; layer < layers; ++layer) {
      std::vector<LocalStep> steps = StepsOf(layer);
      std::move(steps.begin(), steps.end(), std::back_inserter(result_.steps));
    }
    std::move(behind, outside.end(), std::back_inserter(result_.steps));
    return std::move(result_);
  }

 private:
  // --- what the run holds ---

  bool IsBridged(const TapPlace& place, size_t token) const {
    const auto it = bridges_.find(place);
    return it != bridges_.end() && std::ranges::count(it->second.tokens, token) > 0;
  }
  bool Knows(const TapPlace& place, size_t token) const {
    return rows_.Row(place, token) || IsBridged(place, token);
  }

  // Their values as the taps of a pass, NaN where the run lacks them.
  CapturedTaps TapsFor(const std::vector<TapPlace>& places) const {
    CapturedTaps taps;
    std::vector<double> values;
    for (const TapPlace& place : places) {
      const size_t n = WidthOf(place.first, model_.config);
      values.assign(tokens_ * n, std::numeric_limits<double>::quiet_NaN());
      for (size_t t = 0; t < tokens_; ++t)
        if (const StoredRow* row = rows_.Row(place, t))
          for (size_t i = 0; i < n; ++i) values[t * n + i] = row->At(i);
      taps.OnTap({place.first, place.second, 0, tokens_, n, n, values.data()});
    }
    return taps;
  }

  // What the steps of a layer read.
  std::vector<TapPlace> InputsOfLayer(int layer) const {
    const int last = static_cast<int>(model_.config.layers) - 1;
    if (layer == kNoLayer) return {{Tap::layer_out, last}, {Tap::final_norm, kNoLayer}};
    std::vector<TapPlace> places = {layer == 0 ? TapPlace{Tap::embedding, kNoLayer}
                                               : TapPlace{Tap::layer_out, layer - 1}};
    for (const Tap tap :
         {Tap::attn_norm, Tap::q_bias, Tap::k_bias, Tap::v_bias, Tap::q_rope, Tap::k_rope,
          Tap::attn_ctx, Tap::attn_out, Tap::attn_residual, Tap::ffn_norm, Tap::ffn_gate,
          Tap::ffn_up, Tap::ffn_silu, Tap::ffn_swiglu, Tap::ffn_out})
      places.emplace_back(tap, layer);
    return places;
  }

  // The steps of a layer that a run with these taps can have; `rows` as in StepCases.
  std::vector<Case> CasesOf(int layer, size_t rows) const {
    std::vector<Case> cases =
        StepCases(model_, layer, TapsFor(InputsOfLayer(layer)), rows_.ids(), rows, 0);
    const bool fused = layer != kNoLayer && !rows_.HasAny({Tap::ffn_silu, layer});
    std::erase_if(cases, [&](const Case& c) {
      if (c.op == Op::gate_up_swiglu) return !fused;
      if (c.op == Op::silu || c.op == Op::swiglu) return fused;
      return c.op == Op::quantize;
    });
    return cases;
  }

  // --- what can be judged ---

  static Tap TapOfOutput(const Case& c, const std::string& output, const TapPlace& first) {
    if (output == "y_before_bias") return *FindTap(c.name.substr(c.name.find('.') + 1));
    if (output == "gate") return Tap::ffn_gate;
    if (output == "up") return Tap::ffn_up;
    return first.first;
  }

  // The tokens of which all is known that the step reads.
  std::vector<size_t> TokensOf(const Case& c, const std::vector<TapPlace>& inputs) const {
    std::vector<size_t> tokens;
    for (size_t t = 0; t < tokens_; ++t) {
      bool all = true;
      for (const TapPlace& input : inputs) {
        const bool is_cache = c.op == Op::gqa_attention && input.first != Tap::q_rope;
        for (size_t seen = is_cache ? 0 : t; seen <= t; ++seen) all &= Knows(input, seen);
      }
      if (all) tokens.push_back(t);
    }
    return tokens;
  }
  // And of which the run holds this output.
  std::vector<size_t> TokensOf(const Case& c, const std::vector<TapPlace>& inputs,
                               const TapPlace& output) const {
    std::vector<size_t> tokens = TokensOf(c, inputs);
    std::erase_if(tokens, [&](size_t t) { return !rows_.Row(output, t); });
    return tokens;
  }

  // Whether the contract rounds an input to integers that nobody knows.
  bool HidesIntegers(const Case& c, const std::vector<TapPlace>& inputs) const {
    return HasMatrix(c.op) && result_.contract.contract != Contract::f32 &&
           (BytesOf(rows_.TypeOf(inputs[0])) < 4 || bridges_.contains(inputs[0]));
  }

  // The bridged steps in front of some taps.
  std::vector<std::pair<std::string, Op>> StepsBefore(const std::vector<TapPlace>& inputs) const {
    std::vector<std::pair<std::string, Op>> steps;
    for (const TapPlace& input : inputs)
      if (const auto it = bridges_.find(input); it != bridges_.end())
        for (const auto& step : it->second.over)
          if (std::ranges::count(steps, step) == 0) steps.push_back(step);
    return steps;
  }

  // Plans a bridge over the outputs that the run lacks.
  void PlanBridge(const Case& c, int layer) {
    const std::vector<TapPlace> inputs = StepInputs(c, layer, model_.config.layers);
    const std::vector<size_t> tokens = TokensOf(c, inputs);
    if (tokens.empty() || HidesIntegers(c, inputs)) return;
    std::vector<std::pair<std::string, Op>> over = StepsBefore(inputs);
    over.emplace_back(c.name, c.op);
    for (const TapPlace& output : StepOutputs(c, layer))
      if (!rows_.HasAny(output)) bridges_[output] = {tokens, over, {}, {}};
  }

  // What the run lacks for a step to be judged.
  std::vector<std::string> MissingFor(const Case& c, int layer) const {
    const std::vector<TapPlace> inputs = StepInputs(c, layer, model_.config.layers);
    std::vector<TapPlace> outputs = StepOutputs(c, layer);
    std::vector<std::string> missing;
    if (c.op == Op::embed && !run_.header.ids) missing.push_back("token ids");
    for (const TapPlace& place : inputs)
      if (!rows_.HasAny(place) && !bridges_.contains(place))
        missing.push_back(TapPath(place.first, place.second));
    if (!c.vector.empty() && HasMatrix(c.op))
      outputs.emplace_back(TapOfOutput(c, "y_before_bias", outputs[0]), layer);
    if (std::none_of(outputs.begin(), outputs.end(),
                     [&](const auto& p) { return rows_.HasAny(p); }))
      missing.push_back(TapPath(outputs[0].first, outputs[0].second));
    const bool any = std::any_of(outputs.begin(), outputs.end(), [&](const TapPlace& output) {
      return !TokensOf(c, inputs, output).empty();
    });
    if (missing.empty() && !any) missing.push_back("one token with all of its taps");
    if (missing.empty() && HidesIntegers(c, inputs))
      missing.push_back(
          fmt::format("{} in float32: of rounded or computed values the integers are not known",
                      TapPath(inputs[0].first, inputs[0].second)));
    return missing;
  }

  // --- judging ---

  // Where a case holds the values of an input tap.
  template <class C>
  static auto& Slot(C& c, const Case& of, Tap tap) {
    if (of.op == Op::gqa_attention)
      return tap == Tap::k_rope ? c.k : tap == Tap::v_bias ? c.v : c.x;
    return of.input_tap.starts_with(InfoOf(tap).name) ? c.x : c.x2;
  }

  std::optional<Storage> StorageOf(const Case& c, const std::vector<TapPlace>& inputs,
                                   const TapPlace& output) const {
    const std::vector<std::pair<std::string, Op>> over = StepsBefore(inputs);
    if (result_.bits && over.empty()) return std::nullopt;
    Storage storage = {StoredType::f32, rows_.TypeOf(output)};
    for (const TapPlace& input : inputs) {
      storage.inputs = Narrower(storage.inputs, rows_.TypeOf(input));
      if (const auto it = bridges_.find(input); it != bridges_.end())
        Slot(storage.carried, c, input.first) = it->second.error;
    }
    // What it has not stored a program has rounded as it does all else.
    if (bridges_.contains(output)) storage.outputs = storage.inputs;
    return storage;
  }

  // The oracle's values on the bridges.
  void TakeBridges(Case& c, const std::vector<TapPlace>& inputs) const {
    for (const TapPlace& input : inputs)
      if (const auto it = bridges_.find(input); it != bridges_.end())
        Slot(c, c, input.first).assign(it->second.value.begin(), it->second.value.end());
  }

  bool IsHalfKv(const Case& c, RunContract contract) const {
    return contract.kv == KvType::f16 && c.op == Op::gqa_attention;
  }

  // Runs the oracle over a bridge.
  void Cross(const Case& c, int layer) {
    const std::vector<TapPlace> inputs = StepInputs(c, layer, model_.config.layers);
    const TapPlace first = StepOutputs(c, layer)[0];
    const RunContract& contract = result_.contract;
    for (Expected& e : ExpectedOf(c, contract.contract, IsHalfKv(c, contract), threads_,
                                  StorageOf(c, inputs, first))) {
      if (e.name == "y_before_bias" || (c.op == Op::gate_up_swiglu && e.name != "y")) continue;
      const auto bridge = bridges_.find({TapOfOutput(c, e.name, first), layer});
      if (bridge == bridges_.end()) continue;
      bridge->second.error.clear();
      for (size_t i = 0; i < e.value.size(); ++i)
        bridge->second.error.push_back(e.exact ? HalfUlp(e.value[i], StoredType::f32)
                                               : e.Tolerance(i, 1));
      bridge->second.value = std::move(e.value);
    }
  }

  // Tolerances that have grown as long as the values over the steps in between judge nothing.
  static bool IsBlind(const Expected& e) {
    double values = 0, tolerances = 0;
    for (size_t i = 0; i < e.value.size(); ++i) {
      values += e.value[i] * e.value[i];
      tolerances += e.Tolerance(i, 1) * e.Tolerance(i, 1);
    }
    return !(tolerances < values);
  }

  // Rows of some tokens alone.
  static void Keep(const std::vector<size_t>& tokens, Expected& e) {
    for (std::vector<double>* values : {&e.value, &e.per_sqrt_d, &e.fixed}) {
      if (values->empty()) continue;
      std::vector<double> kept;
      for (const size_t t : tokens)
        kept.insert(kept.end(), values->begin() + static_cast<ptrdiff_t>(t * e.n),
                    values->begin() + static_cast<ptrdiff_t>((t + 1) * e.n));
      *values = std::move(kept);
    }
    e.tokens = tokens.size();
  }

  void Judge(const Case& c, LocalStep& step, RunContract contract) const {
    const std::vector<TapPlace> inputs = StepInputs(c, step.layer, model_.config.layers);
    const TapPlace first = StepOutputs(c, step.layer)[0];
    std::vector<Output> outputs;
    std::deque<GuardedBuffer<float>> got;
    std::vector<Expected> expected;
    bool whole = true;
    for (Expected& e : ExpectedOf(c, contract.contract, IsHalfKv(c, contract), threads_,
                                  StorageOf(c, inputs, first))) {
      if (c.op == Op::gate_up_swiglu && e.name != "y") continue;
      const TapPlace place = {TapOfOutput(c, e.name, first), step.layer};
      const std::vector<size_t> tokens = TokensOf(c, inputs, place);
      whole &= tokens.size() == tokens_;
      if (tokens.empty()) continue;
      Keep(tokens, e);
      if (!step.over.empty() && IsBlind(e)) {
        step.missing = {"taps in between: the tolerance has grown to the size of the values"};
        return;
      }
      GuardedBuffer<float>& values = got.emplace_back(e.name, e.tokens, e.n);
      for (size_t t = 0; t < tokens.size(); ++t)
        for (size_t i = 0; i < e.n; ++i)
          values.data()[t * e.n + i] = static_cast<float>(rows_.Row(place, tokens[t])->At(i));
      outputs.push_back({place, tokens});
      expected.push_back(std::move(e));
    }
    Verdict& v = step.verdict = JudgeOutputs(expected, got, true, 1);
    if (v.status == Status::fail && whole && step.over.empty() && c.op != Op::gate_up_swiglu)
      v.blame = BlameSubBlock(c, contract.contract, expected, got, 1);
    for (size_t o = 0; o < outputs.size(); ++o)
      if (expected[o].name == v.output) {
        v.token = outputs[o].tokens[v.token];
        step.place = TapPath(outputs[o].place.first, outputs[o].place.second);
      }
  }

  LocalStep Blank(const Case& c, int layer) const {
    LocalStep step;
    step.name = c.name, step.layer = layer, step.op = c.op;
    step.missing = MissingFor(c, layer);
    if (step.judged()) step.over = StepsBefore(StepInputs(c, layer, model_.config.layers));
    return step;
  }

  // Without the weights, which take long to copy. Plans the bridges of the layer.
  std::vector<LocalStep> BlanksOf(int layer) {
    bridges_.clear();
    std::vector<LocalStep> steps;
    for (const Case& c : CasesOf(layer, 1)) {
      steps.push_back(Blank(c, layer));
      if (layer != kNoLayer) PlanBridge(c, layer);
    }
    return steps;
  }

  std::vector<LocalStep> StepsOf(int layer) {
    std::vector<LocalStep> steps = BlanksOf(layer);
    if (std::none_of(steps.begin(), steps.end(), [](const auto& s) { return s.judged(); }))
      return steps;
    std::set<std::string> crossed;
    for (const LocalStep& step : steps)
      for (const auto& [name, op] : step.over) crossed.insert(name);
    std::vector<Case> cases = CasesOf(layer, 0);
    for (size_t i = 0; i < steps.size(); ++i) {
      LocalStep& step = steps[i];
      if (!step.judged() && !crossed.contains(step.name)) continue;
      if (progress_) progress_(step.name);
      TakeBridges(cases[i], StepInputs(cases[i], layer, model_.config.layers));
      if (crossed.contains(step.name)) Cross(cases[i], layer);
      if (step.judged()) Judge(cases[i], step, result_.contract);
    }
    return steps;
  }

  // --- the contract ---

  void TellContract() {
    const auto& h = run_.header;
    if (const auto own = ContractOf(h)) result_.contract = *own;
    result_.contract_is_a_guess = !h.contract;
    result_.kv_is_a_guess = !h.kv;
    if (h.kv) result_.contract.kv = ParseKv(*h.kv, h.path + ": KV type");
    if (!h.contract) {
      std::vector<RunContract> candidates;
      for (const Contract each : {Contract::f32, Contract::q16, Contract::q8})
        candidates.push_back({each, result_.contract.kv});
      result_.contract = Fittest(candidates, HasMatrix);
    }
    if (h.kv) return;
    result_.contract = Fittest(
        {{result_.contract.contract, KvType::f32}, {result_.contract.contract, KvType::f16}},
        [](Op op) { return op == Op::gqa_attention; });
  }

  // The first of the candidates under which most of the first steps of these ops pass; steps that
  // have all of their taps.
  RunContract Fittest(const std::vector<RunContract>& candidates, bool (*depends)(Op)) {
    const auto tells = [&](const LocalStep& s) {
      return depends(s.op) && s.judged() && s.over.empty();
    };
    std::vector<std::pair<Case, LocalStep>> sample;
    for (int layer = 0; layer < static_cast<int>(model_.config.layers); ++layer) {
      if (sample.size() >= kSample) break;
      const std::vector<LocalStep> blanks = BlanksOf(layer);
      if (std::none_of(blanks.begin(), blanks.end(), tells)) continue;
      for (Case& c : CasesOf(layer, 0)) {
        LocalStep step = Blank(c, layer);
        if (tells(step) && sample.size() < kSample)
          sample.emplace_back(std::move(c), std::move(step));
      }
    }
    RunContract best = candidates.front();
    size_t most = 0;
    for (const RunContract& candidate : candidates) {
      if (most == sample.size()) break;
      size_t passed = 0;
      for (auto& [c, step] : sample) {
        if (progress_) progress_(fmt::format("{} under {}", step.name, NameOf(candidate)));
        Judge(c, step, candidate);
        passed += !step.wrong();
      }
      if (passed > most) most = passed, best = candidate;
    }
    return best;
  }

  const Qwen2& model_;
  const RunRecord& run_;
  const RunRows rows_;
  const size_t tokens_;
  int threads_;
  const std::function<void(std::string_view)>& progress_;
  std::map<TapPlace, Bridge> bridges_;  // of the layer that is judged
  LocalResult result_;
};

}  // namespace

std::string LocalStep::range() const {
  if (over.empty()) return name;
  return fmt::format("{}..{}", over.front().first, name.substr(name.find('.') + 1));
}

std::string LocalStep::ops() const {
  return over.empty() ? std::string(NameOf(op))
                      : fmt::format("{}..{}", NameOf(over.front().second), NameOf(op));
}

const LocalStep* LocalResult::FirstWrong() const {
  const auto it = std::find_if(steps.begin(), steps.end(), [](const auto& s) { return s.wrong(); });
  return it == steps.end() ? nullptr : &*it;
}

size_t LocalResult::judged() const {
  return static_cast<size_t>(
      std::count_if(steps.begin(), steps.end(), [](const auto& s) { return s.judged(); }));
}

size_t LocalResult::wrong() const {
  return static_cast<size_t>(
      std::count_if(steps.begin(), steps.end(), [](const auto& s) { return s.wrong(); }));
}

LocalResult JudgeLocally(const Qwen2& model, const RunRecord& run, int threads,
                         const std::function<void(std::string_view)>& progress) {
  return LocalJudge(model, run, threads, progress).Run();
}

}  // namespace lab
