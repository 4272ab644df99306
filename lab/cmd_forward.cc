// lab forward: a whole pass, its trace, its tensors.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "lab/cli.h"
#include "lab/error.h"
#include "lab/names.h"
#include "lab/output.h"
#include "lab/parallel.h"
#include "lab/prompt.h"
#include "lab/safetensors.h"
#include "lab/sha256.h"
#include "lab/simd_target.h"
#include "lab/times.h"
#include "lab/trace.h"
#include "model/forward.h"
#include "model/repack.h"
#include "model/tokenizer.h"

namespace lab {
namespace {

struct Flags : PassFlags {
  std::string model;
  Prompt prompt;
  bool ignore_eos = false;
  size_t generate = 0;
  std::string backend;
  int threads = DefaultThreads();
  std::string trace, dump, taps, format, time;
  size_t top = 5;
  bool tracing = false, sketch = false, timing = false;
  std::vector<std::string> argv;
};

// Returns false when --help was asked for.
bool ParseFlags(int argc, char** argv, Flags& f) {
  CLI::App app(
      "Runs a prompt through the model: the top tokens after it, with --trace the statistics of\n"
      "every step, with -n a greedy continuation.",
      "lab forward");
  AddModel(app, f.model);
  const std::vector<CLI::Option*> prompt = AddPrompt(app, f.prompt);
  app.add_flag("--chat", f.prompt.chat, "wrap the text as a user turn in ChatML")
      ->excludes(prompt.back());
  app.add_option("-n", f.generate, "tokens to generate, greedily (default 0)")
      ->type_name("N")
      ->check(NotNegative);
  app.add_flag("--ignore-eos", f.ignore_eos, "do not stop at the end of text");
  app.add_option("--backend", f.backend,
                 "oracle (float64), ref (float32 yardstick), hwy (SIMD);\ndefault hwy where it is "
                 "complete, else ref")
      ->type_name("oracle|ref|hwy|cuda");
  AddPassFlags(app, f);
  AddThreads(app, f.threads);
  auto* trace =
      app.add_option("--trace", f.trace,
                     "statistics of every tap: a table; with a file name also JSON lines there,\n"
                     "or CSV if it ends in .csv; - writes JSON lines to standard output")
          ->expected(0, 1)
          ->type_name("[=FILE]");
  app.add_flag("--trace-sketch", f.sketch,
               "with --trace: also a hash and 64 random projections of every row, so that 'lab "
               "diff' of two\ntraces knows how far apart the rows are")
      ->needs(trace);
  auto* time = app.add_option("--time", f.time,
                              "where the time goes, step by step; with a file name also every "
                              "step there, as a\nChrome trace for ui.perfetto.dev")
                   ->expected(0, 1)
                   ->type_name("[=FILE]");
  app.add_option("--taps", f.taps, "only these: globs such as ffn_*,L03.*")->type_name("GLOB,...");
  app.add_option("--dump", f.dump, "full tensors of the taps, as safetensors")->type_name("FILE");
  app.add_option("--top", f.top, "highest logits to show (default 5)")
      ->type_name("K")
      ->check(NotNegative);
  AddFormat(app, f.format);
  app.footer("Example:\n  lab forward --trace=run.jsonl --taps 'L03.*' --prompt \"What is 2+2?\"");
  if (!ParseArgs(app, argc, argv)) return false;
  f.tracing = trace->count() > 0;
  f.timing = time->count() > 0;
  f.argv.assign(argv, argv + argc);
  return true;
}

// The tensors of the taps, kept until the run is over.
template <class T>
class TensorDump : public TapSink<T> {
 public:
  explicit TensorDump(TapFilter filter) : filter_(std::move(filter)) {}
  bool Wants(Tap tap, int layer) const override { return filter_.Has(tap, layer); }
  void OnTap(const TapView<T>& v) override {
    Tensor& tensor = tensors_[{v.layer, v.tap}];
    tensor.n = v.n;
    for (size_t t = 0; t < v.tokens; ++t)
      tensor.values.insert(tensor.values.end(), v.values + t * v.stride,
                           v.values + t * v.stride + v.n);
  }
  void Write(OutputFile& out, const std::map<std::string, std::string>& metadata) const {
    std::vector<SafetensorsEntry> entries;
    for (const auto& [key, tensor] : tensors_)
      entries.push_back({TapPath(key.second, key.first),
                         sizeof(T) == 8 ? "F64" : "F32",
                         {tensor.values.size() / tensor.n, tensor.n},
                         {reinterpret_cast<const uint8_t*>(tensor.values.data()),
                          tensor.values.size() * sizeof(T)}});
    WriteSafetensors(out, entries, metadata);
  }

 private:
  struct Tensor {
    size_t n;
    std::vector<T> values;
  };
  TapFilter filter_;
  std::map<std::pair<int, Tap>, Tensor> tensors_;
};

template <class T>
class SinkList : public TapSink<T> {
 public:
  void Add(TapSink<T>* sink) { sinks_.push_back(sink); }
  bool Wants(Tap tap, int layer) const override {
    return std::any_of(sinks_.begin(), sinks_.end(),
                       [&](const auto* s) { return s->Wants(tap, layer); });
  }
  bool WantsValues(Tap tap, int layer) const override {
    return std::any_of(sinks_.begin(), sinks_.end(), [&](const auto* s) {
      return s->Wants(tap, layer) && s->WantsValues(tap, layer);
    });
  }
  bool WantsSums(Tap tap, int layer) const override {
    return std::any_of(sinks_.begin(), sinks_.end(), [&](const auto* s) {
      return s->Wants(tap, layer) && s->WantsSums(tap, layer);
    });
  }
  void OnTap(const TapView<T>& view) override {
    for (TapSink<T>* sink : sinks_)
      if (sink->Wants(view.tap, view.layer)) sink->OnTap(view);
  }

 private:
  std::vector<TapSink<T>*> sinks_;
};

// Shows on a terminal that something goes on: a reference pass takes seconds.
template <class T>
class Progress : public TapSink<T> {
 public:
  explicit Progress(size_t layers) : layers_(layers) {}
  bool Wants(Tap tap, int) const override { return tap == Tap::layer_out; }
  bool WantsValues(Tap, int) const override { return false; }
  void OnTap(const TapView<T>& v) override {
    line_(fmt::format("tokens {}-{}: layer {}/{}", v.first_token, v.first_token + v.tokens - 1,
                      v.layer + 1, layers_));
  }

 private:
  ProgressLine line_;
  size_t layers_;
};

TraceHeader MakeHeader(const Flags& f, const Qwen2& model, const RowSet& rows, KvType kv) {
  TraceHeader h;
  h.model = model.name();
  h.architecture = "qwen2";
  h.layers = model.config.layers;
  for (const WeightTensor& t : model.source->tensors()) h.tensor_types.emplace_back(t.name, t.type);
  h.contract = NameOf(rows.contract());
  h.kv_type = NameOf(kv);
  h.backend = NameOf(rows.backend());
  for (const Op op : ForwardOps(rows.contract()))
    h.rows.emplace_back(NameOf(op), rows[op].function);
  for (const UseRule& rule : rows.rules()) {
    const size_t equals = rule.text.find('=');
    h.rows.emplace_back(rule.text.substr(0, equals), rule.text.substr(equals + 1));
  }
  h.threads = f.threads;
  h.command_line = f.argv;
  return h;
}

// One run: prompt, generation, results.
template <class T>
class Run {
 public:
  Run(const Flags& flags, const Qwen2& model, const Tokenizer* tokenizer,
      std::vector<int32_t> prompt, const RowSet& rows, KvType kv)
      : f_(flags),
        model_(model),
        tokenizer_(tokenizer),
        prompt_(std::move(prompt)),
        forward_(model, rows, kv, flags.threads,
                 prompt_.size() + std::max<size_t>(flags.generate, 1) - 1) {
    trace_.header = MakeHeader(flags, model, rows, kv);
    const TapFilter filter(GlobList(flags.taps).globs(), model.config.layers);
    if (flags.tracing)
      sinks_.Add(&recorder_.emplace(trace_, filter, flags.top, flags.threads, flags.sketch));
    if (!flags.dump.empty()) sinks_.Add(&tensors_.emplace(filter));
    if (isatty(STDERR_FILENO)) sinks_.Add(&progress_.emplace(model.config.layers));
    // Every output is opened before anything is computed.
    if (!flags.dump.empty()) dump_file_.emplace(flags.dump);
    if (!flags.trace.empty()) trace_file_.emplace(flags.trace);
    if (!flags.time.empty()) time_file_.emplace(flags.time);
    if (flags.timing) forward_.RecordTimes(&times_.steps);
  }

  int Execute() {
    Step(prompt_, true);
    Generate();
    progress_.reset();
    if (f_.timing) times_.roofline = MeasureRoofline(f_.threads);
    Finish();
    return ExitCodeOf();
  }

 private:
  bool text_on_stdout() const { return ParseFormat(f_.format) == Format::text && f_.trace != "-"; }

  void Step(std::span<const int32_t> ids, bool prefill) {
    trace_.header.steps.push_back({prefill, forward_.position(), ids.size()});
    trace_.header.ids.insert(trace_.header.ids.end(), ids.begin(), ids.end());
    const auto begin = std::chrono::steady_clock::now();
    forward_.Run(ids, &sinks_);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    PhaseTime& phase = prefill ? times_.prefill : times_.decode;
    phase.tokens += ids.size();
    phase.seconds += taken.count();
    for (const T logit : forward_.logits()) finite_ &= std::isfinite(logit);
  }

  void Generate() {
    Generated& g = trace_.generated;
    Utf8Stream stream;
    const auto emit = [&](const std::string& text) {
      g.text += text;
      if (text_on_stdout() && !f_.tracing) PrintOut(text);
    };
    while (g.ids.size() < f_.generate && finite_) {
      const auto logits = forward_.logits();
      const auto id =
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      g.ids.push_back(id);
      g.end_of_text = tokenizer_ && tokenizer_->IsEndOfText(id) && !f_.ignore_eos;
      if (g.end_of_text) break;
      if (tokenizer_) emit(stream.Push(tokenizer_->Decode(id)));
      if (g.ids.size() < f_.generate) Step({&id, 1}, false);
    }
    if (f_.generate > 0) emit(stream.Finish() + "\n");
    if (!g.text.empty()) g.text.pop_back();
  }

  // Names what was recorded, writes the files, then prints.
  void Finish() {
    TraceHeader& h = trace_.header;
    if (tokenizer_)
      for (const int32_t id : h.ids) h.token_texts.push_back(tokenizer_->Decode(id));
    if (trace_.tops.empty() || trace_.tops.back().token + 1 != forward_.position())
      trace_.tops.push_back(ComputeTop(forward_.logits().data(), model_.config.vocab,
                                       forward_.position() - 1, f_.top));
    for (TopRecord& top : trace_.tops)
      for (const int32_t id : top.ids)
        if (tokenizer_) top.texts.push_back(tokenizer_->Decode(id));
    if (f_.tracing || !f_.dump.empty()) h.sha256 = Sha256OfFile(model_.source->file());

    if (tensors_) {
      tensors_->Write(*dump_file_, {{"model", h.model},
                                    {"sha256", h.sha256},
                                    {"ids", fmt::format("{}", fmt::join(h.ids, ","))},
                                    {"backend", h.backend},
                                    {"contract", h.contract},
                                    {"kv", h.kv_type},
                                    {"head_dim", std::to_string(model_.config.head_dim)}});
      dump_file_->Commit();
    }
    if (trace_file_) {
      const bool csv = f_.trace.ends_with(".csv");
      (csv ? TraceToCsv : TraceToJsonl)(trace_, [&](auto line) { trace_file_->Write(line); });
      trace_file_->Commit();
    }
    if (time_file_) {
      time_file_->Write(TimesToChromeTrace(times_));
      time_file_->Commit();
    }
    if (ParseFormat(f_.format) == Format::jsonl && f_.trace != "-") PrintJsonl();
    if (!text_on_stdout()) return;
    const bool colour = isatty(STDOUT_FILENO);
    if (f_.tracing || f_.generate == 0) PrintOut(TraceToText(trace_, colour));
    if (f_.tracing && f_.generate > 0)
      PrintOut(fmt::format("\ngenerated: {}\n", trace_.generated.text));
    if (f_.timing) PrintOut(TimesToText(times_));
  }

  void PrintJsonl() const {
    constexpr size_t kPiece = 1 << 16;
    std::string piece;
    TraceToJsonl(trace_, [&](std::string_view line) {
      piece += line;
      if (piece.size() >= kPiece) PrintOut(std::exchange(piece, {}));
    });
    PrintOut(piece + (f_.timing ? TimesToJsonl(times_) : ""));
  }

  int ExitCodeOf() const {
    const TapRecord* bad = trace_.FirstNonFinite();
    if (bad)
      PrintErr(fmt::format("lab: first value that is not finite: {} token {} channel {}\n",
                           TapPath(bad->tap, bad->layer), bad->token, bad->stats.argmax));
    else if (!finite_)
      PrintErr("lab: logits are not finite; --trace shows where that starts\n");
    return bad || !finite_ ? kNonFinite : kPass;
  }

  const Flags& f_;
  const Qwen2& model_;
  const Tokenizer* tokenizer_;
  std::vector<int32_t> prompt_;
  Forward<T> forward_;
  Trace trace_;
  SinkList<T> sinks_;
  std::optional<TraceRecorder<T>> recorder_;
  std::optional<TensorDump<T>> tensors_;
  std::optional<Progress<T>> progress_;
  std::optional<OutputFile> dump_file_, trace_file_, time_file_;
  RunTimes times_;
  bool finite_ = true;
};

// Absent --backend: the SIMD rows where this binary has all of them, else the yardstick.
RowSet ChooseRows(const Flags& f) {
  const auto contract_on = [&](Backend backend) {
    return f.contract.empty() ? DefaultContract(backend) : ParseContract(f.contract, "--contract");
  };
  Backend backend = Backend::hwy;
  if (!f.backend.empty())
    backend = ParseBackend(f.backend, "--backend");
  else if (!RowSet::Complete(backend, contract_on(backend)))
    backend = Backend::ref;
  return {backend, contract_on(backend)};
}

}  // namespace

int CmdForward(int argc, char** argv) {
  Flags f;
  if (!ParseFlags(argc, argv, f)) return kPass;
  RowSet rows = ChooseRows(f);
  const Backend backend = rows.backend();
  const KvType kv = f.kv.empty() ? DefaultKv(rows.contract()) : ParseKv(f.kv, "--kv");
  CheckThreads(f.threads);
  UseSimdTarget(f.target);
  ParseFormat(f.format);

  Qwen2 model = OpenModel(ResolveModel(f.model));
  rows.Use(ParseUse(f.use, rows.contract(), model.config.layers));
  if (!f.use.empty() && backend == Backend::oracle)
    Fail("--use: the oracle is what everything is judged by; choose another --backend");
  std::unique_ptr<Tokenizer> tokenizer;
  if (f.prompt.tokens.empty() || model.source->Strings("tokenizer.ggml.tokens"))
    tokenizer = std::make_unique<Tokenizer>(*model.source);
  std::vector<int32_t> prompt = PromptIds(f.prompt, model, tokenizer.get());
  const size_t longest = model.config.context_length;
  if (prompt.size() > longest || f.generate > longest - prompt.size() + 1)
    Fail("{} prompt tokens and {} to generate do not fit the context of {} tokens of this model",
         prompt.size(), f.generate, longest);
  if (rows.ReadsRows8()) Repack(model, f.threads);
  if (backend == Backend::oracle)
    return Run<double>(f, model, tokenizer.get(), std::move(prompt), rows, kv).Execute();
  return Run<float>(f, model, tokenizer.get(), std::move(prompt), rows, kv).Execute();
}

}  // namespace lab
