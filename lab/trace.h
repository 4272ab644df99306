#pragma once
// A trace: what one run recorded at its taps, and enough about the run to know what may be compared
// with it. Written as JSON lines (the schema is in notes/formats.md), CSV or a terminal table.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lab/output.h"
#include "lab/sketch.h"
#include "lab/stats.h"
#include "lab/taps.h"

namespace lab {

struct TraceStep {
  bool prefill;
  size_t first_token, tokens;
};

struct TraceHeader {
  std::string model, sha256, architecture;
  std::vector<std::pair<std::string, std::string>> tensor_types;  ///< name, type
  size_t layers = 0;
  std::vector<int32_t> ids;              ///< of all tokens that were run, by position from 0
  std::vector<std::string> token_texts;  ///< for the terminal; empty without a tokenizer
  std::vector<TraceStep> steps;
  std::string contract, kv_type, backend;
  std::vector<std::pair<std::string, std::string>> rows;  ///< op, function
  int threads = 1;
  std::vector<std::string> command_line;
};

struct TapRecord {
  Tap tap;
  int layer;
  size_t token;
  Stats stats;
  /// Null unless asked for. Kept apart: 528 bytes would make a record, of which a traced prefill of
  /// 512 tokens has 290 thousand, five times as large.
  std::shared_ptr<const Sketch> sketch = {};
};

/// The highest logits of a token, highest first.
struct TopRecord {
  size_t token;
  std::vector<int32_t> ids;
  std::vector<std::string> texts;  ///< for the terminal
  std::vector<double> logits, p;   ///< p: softmax over the whole vocabulary
};

struct Generated {
  std::vector<int32_t> ids;
  std::string text;
  bool end_of_text = false;  ///< otherwise the length was reached
};

struct Trace {
  TraceHeader header;
  std::vector<TapRecord> taps;  ///< in the order of the pass; of one tap and layer, by token
  std::vector<TopRecord> tops;
  Generated generated;

  /// The record of the first value that is not finite, or null.
  const TapRecord* FirstNonFinite() const;
};

/// The records of one tap and layer in order of token.
using TapGroup = std::vector<const TapRecord*>;
/// All groups by (layer, tap); the layer of taps outside the layers is kNoLayer.
std::map<std::pair<int, Tap>, TapGroup> GroupTaps(const Trace& trace);
/// Pool of a group.
Stats PoolGroup(const TapGroup& group);

/// Records what passes: statistics of every token and tap that the filter has, top-k of every
/// lm_head row, computed on up to `threads` threads; with `sketches` also the sketch of every row.
template <class T>
class TraceRecorder : public TapSink<T> {
 public:
  TraceRecorder(Trace& trace, TapFilter filter, size_t top_k, int threads, bool sketches = false)
      : trace_(trace),
        filter_(std::move(filter)),
        top_k_(top_k),
        threads_(threads),
        sketches_(sketches) {}
  bool Wants(Tap tap, int layer) const override { return filter_.Has(tap, layer); }
  bool WantsValues(Tap tap, int) const override {
    return sketches_ || (tap == Tap::lm_head && top_k_ > 0);
  }
  bool WantsSums(Tap, int) const override { return true; }
  void OnTap(const TapView<T>& view) override;

 private:
  Trace& trace_;
  TapFilter filter_;
  size_t top_k_;
  int threads_;
  bool sketches_;
};

/// The k highest of `vocab` logits, which are not read where k is 0.
template <class T>
TopRecord ComputeTop(const T* logits, size_t vocab, size_t token, size_t k);

/// Takes a file line by line: the trace of 2,000 tokens of 28 layers has 290 MB.
using TextSink = std::function<void(std::string_view)>;
/// One record a line: header, tap, top, pooled, generated, summary.
void TraceToJsonl(const Trace& trace, const TextSink& write);
/// One row for each layer and token: mean, std, absmax and argmax of every tap inside the layers.
void TraceToCsv(const Trace& trace, const TextSink& write);
/// For eyes: the layer table, massive activations, embedding, final norm, lm_head, the top-k.
std::string TraceToText(const Trace& trace, bool colour);

}  // namespace lab
