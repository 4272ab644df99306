#include "lab/local.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "lab/blame.h"
#include "lab/error.h"
#include "lab/run_headers.h"

namespace lab {
namespace {

constexpr size_t kSample = 8;  // steps by which the contract and the KV type are told

size_t WidthOf(Tap tap, const Qwen2Config& c) {
  switch (tap) {
    case Tap::q_proj:
    case Tap::q_bias:
    case Tap::q_rope:
    case Tap::attn_ctx:
      return c.q_dim();
    case Tap::k_proj:
    case Tap::k_bias:
    case Tap::k_rope:
    case Tap::v_proj:
    case Tap::v_bias:
      return c.kv_dim();
    case Tap::qkv:
      return c.qkv_dim();
    case Tap::ffn_gate:
    case Tap::ffn_up:
    case Tap::ffn_silu:
    case Tap::ffn_swiglu:
      return c.ffn;
    case Tap::lm_head:
      return c.vocab;
    default:
      return c.hidden;
  }
}

// The type with fewer bits behind the point.
StoredType Narrower(StoredType a, StoredType b) {
  return HalfUlp(1, a) > HalfUlp(1, b) ? a : b;
}

// Where an output of a step lies, and the tokens of it that can be judged.
struct Output {
  TapPlace place;
  std::vector<size_t> tokens;
};

class LocalJudge {
 public:
  LocalJudge(const Qwen2& model, const RunRecord& run, int threads,
             const std::function<void(std::string_view)>& progress)
      : model_(model), run_(run), threads_(threads), progress_(progress) {
    const auto last = LastToken(run);
    if (!run.has_tensors() || !last)
      throw Error(kNotComparable,
                  fmt::format("{}: --local needs tensors; this file holds no whole row of values",
                              run.header.path));
    tokens_ = *last + 1;
    ids_ = run.header.ids.value_or(std::vector<int32_t>(tokens_, 0));
    CheckFits();
    result_.bits = run.header.arithmetic == StoredType::f32;
  }

  LocalResult Run() {
    TellContract();
    if (!result_.bits) NoteStorage();
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

  void CheckFits() const {
    const auto refuse = [&](const std::string& why) {
      throw Error(kNotComparable, fmt::format("{}: {}", run_.header.path, why));
    };
    const Qwen2Config& c = model_.config;
    if (run_.header.layers && *run_.header.layers != c.layers)
      refuse(fmt::format("it has {} layers, the model {}", *run_.header.layers, c.layers));
    for (const int32_t id : ids_)
      if (id < 0 || static_cast<size_t>(id) >= c.vocab)
        refuse(fmt::format("token {} is outside the vocabulary of the model", id));
    for (const auto& [place, record] : run_.tokens) {
      if (place.layer >= static_cast<int>(c.layers))
        refuse(fmt::format("it has a layer {}, the model has {} layers", place.layer, c.layers));
      if (record.row && record.row->size() != WidthOf(place.tap, c))
        refuse(fmt::format("{} has {} channels, the model {}", TapPath(place.tap, place.layer),
                           record.row->size(), WidthOf(place.tap, c)));
    }
  }

  const StoredRow* Row(const TapPlace& place, size_t token) const {
    const auto it = run_.tokens.find({place.first, place.second, token});
    return it != run_.tokens.end() && it->second.row ? &*it->second.row : nullptr;
  }
  bool HasAny(const TapPlace& place) const {
    for (size_t t = 0; t < tokens_; ++t)
      if (Row(place, t)) return true;
    return false;
  }

  // How the values of a tap may have been rounded. A case holds floats, whatever the file does.
  StoredType TypeOf(const TapPlace& place) const {
    StoredType type = run_.header.rounded_to.value_or(StoredType::f32);
    for (size_t t = 0; t < tokens_; ++t)
      if (const StoredRow* row = Row(place, t)) type = Narrower(type, row->type);
    return type;
  }

  void NoteStorage() {
    std::set<TapPlace> places;
    for (const auto& [place, record] : run_.tokens) places.insert({place.tap, place.layer});
    for (const TapPlace& place : places)
      result_.storage.inputs = result_.storage.outputs =
          Narrower(result_.storage.inputs, TypeOf(place));
  }

  // Their values as the taps of a pass, NaN where the run lacks them.
  CapturedTaps TapsFor(const std::vector<TapPlace>& places) const {
    CapturedTaps taps;
    std::vector<double> values;
    for (const TapPlace& place : places) {
      const size_t n = WidthOf(place.first, model_.config);
      values.assign(tokens_ * n, std::numeric_limits<double>::quiet_NaN());
      for (size_t t = 0; t < tokens_; ++t)
        if (const StoredRow* row = Row(place, t))
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
        StepCases(model_, layer, TapsFor(InputsOfLayer(layer)), ids_, rows, 0);
    const bool fused = layer != kNoLayer && !HasAny({Tap::ffn_silu, layer});
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

  // The tokens of which the run holds all that the step reads and this output.
  std::vector<size_t> TokensOf(const Case& c, const std::vector<TapPlace>& inputs,
                               const TapPlace& output) const {
    std::vector<size_t> tokens;
    for (size_t t = 0; t < tokens_; ++t) {
      bool all = Row(output, t) != nullptr;
      for (const TapPlace& input : inputs) {
        const bool is_cache = c.op == Op::gqa_attention && input.first != Tap::q_rope;
        for (size_t seen = is_cache ? 0 : t; seen <= t; ++seen) all &= Row(input, seen) != nullptr;
      }
      if (all) tokens.push_back(t);
    }
    return tokens;
  }

  // What the run lacks for a step to be judged.
  std::vector<std::string> MissingFor(const Case& c, int layer) const {
    const std::vector<TapPlace> inputs = StepInputs(c, layer, model_.config.layers);
    std::vector<TapPlace> outputs = StepOutputs(c, layer);
    std::vector<std::string> missing;
    if (c.op == Op::embed && !run_.header.ids) missing.push_back("token ids");
    for (const TapPlace& place : inputs)
      if (!HasAny(place)) missing.push_back(TapPath(place.first, place.second));
    if (!c.vector.empty() && HasMatrix(c.op))
      outputs.emplace_back(TapOfOutput(c, "y_before_bias", outputs[0]), layer);
    if (std::none_of(outputs.begin(), outputs.end(), [&](const auto& p) { return HasAny(p); }))
      missing.push_back(TapPath(outputs[0].first, outputs[0].second));
    const bool any = std::any_of(outputs.begin(), outputs.end(), [&](const TapPlace& output) {
      return !TokensOf(c, inputs, output).empty();
    });
    if (missing.empty() && !any) missing.push_back("one token with all of its taps");
    if (missing.empty() && c.op != Op::embed && HasMatrix(c.op) &&
        result_.contract.contract != Contract::f32 && BytesOf(TypeOf(inputs[0])) < 4)
      missing.push_back(fmt::format("{} in float32: of rounded values the integers are not known",
                                    TapPath(inputs[0].first, inputs[0].second)));
    return missing;
  }

  // --- judging ---

  std::optional<Storage> StorageOf(const std::vector<TapPlace>& inputs,
                                   const TapPlace& output) const {
    if (result_.bits) return std::nullopt;
    Storage storage = {StoredType::f32, TypeOf(output)};
    for (const TapPlace& input : inputs) storage.inputs = Narrower(storage.inputs, TypeOf(input));
    return storage;
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
    const bool half_kv = contract.kv == KvType::f16 && c.op == Op::gqa_attention;
    std::vector<Output> outputs;
    std::deque<GuardedBuffer<float>> got;
    std::vector<Expected> expected;
    bool whole = true;
    for (Expected& e :
         ExpectedOf(c, contract.contract, half_kv, threads_, StorageOf(inputs, first))) {
      if (c.op == Op::gate_up_swiglu && e.name != "y") continue;
      const TapPlace place = {TapOfOutput(c, e.name, first), step.layer};
      const std::vector<size_t> tokens = TokensOf(c, inputs, place);
      whole &= tokens.size() == tokens_;
      if (tokens.empty()) continue;
      Keep(tokens, e);
      GuardedBuffer<float>& values = got.emplace_back(e.name, e.tokens, e.n);
      for (size_t t = 0; t < tokens.size(); ++t)
        for (size_t i = 0; i < e.n; ++i)
          values.data()[t * e.n + i] = static_cast<float>(Row(place, tokens[t])->At(i));
      outputs.push_back({place, tokens});
      expected.push_back(std::move(e));
    }
    Verdict& v = step.verdict = JudgeOutputs(expected, got, true, 1);
    if (v.status == Status::fail && whole && c.op != Op::gate_up_swiglu)
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
    return step;
  }

  // Without the weights, which take long to copy.
  std::vector<LocalStep> BlanksOf(int layer) const {
    std::vector<LocalStep> steps;
    for (const Case& c : CasesOf(layer, 1)) steps.push_back(Blank(c, layer));
    return steps;
  }

  std::vector<LocalStep> StepsOf(int layer) {
    std::vector<LocalStep> steps = BlanksOf(layer);
    if (std::none_of(steps.begin(), steps.end(), [](const auto& s) { return s.judged(); }))
      return steps;
    const std::vector<Case> cases = CasesOf(layer, 0);
    for (size_t i = 0; i < steps.size(); ++i) {
      if (!steps[i].judged()) continue;
      if (progress_) progress_(steps[i].name);
      Judge(cases[i], steps[i], result_.contract);
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

  // The first of the candidates under which most of the first steps of these ops pass.
  RunContract Fittest(const std::vector<RunContract>& candidates, bool (*depends)(Op)) const {
    std::vector<std::pair<Case, LocalStep>> sample;
    for (int layer = 0; layer < static_cast<int>(model_.config.layers); ++layer) {
      if (sample.size() >= kSample) break;
      const std::vector<LocalStep> blanks = BlanksOf(layer);
      if (std::none_of(blanks.begin(), blanks.end(),
                       [&](const auto& s) { return depends(s.op) && s.judged(); }))
        continue;
      for (Case& c : CasesOf(layer, 0)) {
        LocalStep step = Blank(c, layer);
        if (depends(c.op) && step.judged() && sample.size() < kSample)
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
  int threads_;
  const std::function<void(std::string_view)>& progress_;
  size_t tokens_ = 0;
  std::vector<int32_t> ids_;
  LocalResult result_;
};

}  // namespace

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
