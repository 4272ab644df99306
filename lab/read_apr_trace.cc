// Readers of what `apr trace --payload` prints: its text, and the CSV of stds by layer that is
// published beside it. Each figure is pooled over tokens, and neither says which: the trace of an
// APR file pools all, that of a GGUF file held the last one only. Its std is that of the sample.
#include <fmt/format.h>

#include <algorithm>

#include "lab/names.h"
#include "lab/run_readers.h"

namespace lab {
namespace {

std::optional<Tap> FindAprTap(std::string_view column) {
  for (size_t t = 0; t < Taps().size(); ++t)
    if (Taps()[t].apr == column && column != "-") return static_cast<Tap>(t);
  return std::nullopt;
}

class AprTraceReader {
 public:
  explicit AprTraceReader(const RunFile& file) : file_(file) {}

  RunRecord Read() {
    run_.header.std_kind = StdKind::sample;
    run_.header.backend = "apr";
    size_t number = 0;
    for (const std::string_view raw : LinesOf(file_.bytes)) {
      ++number;
      const std::string_view line = Trim(raw);
      if (line.empty() || IsHeading(line)) continue;
      if (!TakeHeader(line) && !TakeSection(line) && !TakeFigures(line) && !TakeTop(line))
        run_.report.Unexplained(fmt::format("line {}: '{}'", number, Printable(line)));
    }
    if (heads_ > 0 && hidden_ % heads_ == 0) run_.header.head_dim = hidden_ / heads_;
    run_.report.remarks.push_back(
        "std is taken for the sample's (n - 1), as apr computes it; which tokens are pooled is not "
        "said");
    return std::move(run_);
  }

 private:
  static bool IsHeading(std::string_view line) {
    for (const std::string_view heading :
         {"=== Traced Inference", "Contract:", "Architecture:", "FORWARD PASS",
          "Legend:", "LAYER-BY-LAYER ACTIVATIONS", "Top 5 predictions"})
      if (line.starts_with(heading)) return true;
    return false;
  }

  bool TakeHeader(std::string_view line) {
    RunHeader& h = run_.header;
    if (const auto text = After(line, "Model:")) return h.model = *text, true;
    for (const std::string_view unused : {"Format:", "Vocab size:", "Test prompt:"})
      if (line.starts_with(unused)) return true;
    if (const auto text = After(line, "Layers:")) return Take(*text, h.layers);
    if (const auto text = After(line, "Hidden dim:")) return Take(*text, hidden_);
    if (const auto text = After(line, "Heads:")) return Take(*text, heads_);
    if (const auto text = After(line, "Encoded tokens:")) return TakeIds(*text);
    return false;
  }
  template <class T>
  static bool Take(std::string_view text, T& where) {
    const auto count = ParseCount(text);
    if (count) where = *count;
    return count.has_value();
  }
  bool TakeIds(std::string_view text) {
    if (!text.starts_with('[') || !text.ends_with(']')) return false;
    run_.header.ids = ParseIds(text.substr(1, text.size() - 2));
    return run_.header.ids.has_value();
  }

  // "EMBEDDING:", "Layer  3/28 [OK]"
  bool TakeSection(std::string_view line) {
    if (const auto rest = After(line, "Layer ")) {
      const size_t slash = rest->find('/');
      if (slash == std::string_view::npos) return false;
      const auto layer = ParseCount(rest->substr(0, slash));
      if (layer) layer_ = static_cast<int>(*layer), tap_.reset();
      return layer.has_value();
    }
    if (!line.ends_with(':')) return false;
    tap_ = FindAprTap(line.substr(0, line.size() - 1));
    if (tap_) layer_ = kNoLayer;
    return tap_.has_value();
  }

  Figures* At(Tap tap) { return &run_.pooled[{layer_, tap}].figures; }

  // "ffn_swigl: mean= -0.0026 std=  1.2216", "Range: [a, b]", "Mean: a, Std: b", "L2 norm: a"
  bool TakeFigures(std::string_view line) {
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return false;
    std::string_view name = Trim(line.substr(0, colon)), rest = Trim(line.substr(colon + 1));
    if (layer_ != kNoLayer) {
      const auto tap = FindAprTap(name);
      const auto mean = After(rest, "mean=");
      const size_t std = rest.find("std=");
      if (!tap || !InfoOf(*tap).per_layer || !mean || std == std::string_view::npos) return false;
      const auto mean_figure = ParseFigure(rest.substr(5, std - 5));
      const auto std_figure = ParseFigure(rest.substr(std + 4));
      if (!mean_figure || !std_figure) return false;
      Figures& f = *At(*tap);
      f.mean = mean_figure, f.std = std_figure;
      return true;
    }
    if (!tap_) return false;
    if (name == "L2 norm") return Set(At(*tap_)->l2, rest);
    if (name == "Range" && rest.starts_with('[') && rest.ends_with(']')) {
      const auto ends = SplitAtCommas(rest.substr(1, rest.size() - 2));
      return ends.size() == 2 && Set(At(*tap_)->min, ends[0]) && Set(At(*tap_)->max, ends[1]);
    }
    if (name != "Mean") return false;
    const auto parts = SplitAtCommas(rest);
    if (parts.size() == 1) return Set(At(*tap_)->mean, parts[0]);
    const auto std = After(parts[1], "Std:");
    return parts.size() == 2 && std && Set(At(*tap_)->mean, parts[0]) && Set(At(*tap_)->std, *std);
  }
  static bool Set(std::optional<Figure>& figure, std::string_view text) {
    figure = ParseFigure(text);
    return figure.has_value();
  }

  // "1. token_id=220, logit=16.7368"
  bool TakeTop(std::string_view line) {
    constexpr std::string_view kId = "token_id=", kLogit = "logit=";
    const size_t id = line.find(kId), comma = line.find(','), logit = line.find(kLogit);
    if (id == std::string_view::npos || comma < id || comma > logit ||
        logit == std::string_view::npos)
      return false;
    const auto number = ParseCount(line.substr(id + kId.size(), comma - id - kId.size()));
    const auto value = ParseFigure(line.substr(logit + kLogit.size()));
    if (!number || !value) return false;
    if (run_.tops.empty()) {
      const auto& ids = run_.header.ids;
      run_.tops.push_back({ids && !ids->empty() ? ids->size() - 1 : 0, {}, {}, {}, {}});
    }
    run_.tops[0].ids.push_back(static_cast<int32_t>(*number));
    run_.tops[0].logits.push_back(value->value);
    return true;
  }

  const RunFile& file_;
  RunRecord run_;
  int layer_ = kNoLayer;
  std::optional<Tap> tap_;  // of a section outside the layers
  size_t hidden_ = 0, heads_ = 0;
};

}  // namespace

bool IsAprTrace(const RunFile& file) {
  return IsPlainText(file) && file.bytes.substr(0, 4096).find("=== Traced Inference (APR-TRACE") !=
                                  std::string_view::npos;
}

RunRecord ReadAprTrace(const RunFile& file) {
  return AprTraceReader(file).Read();
}

bool IsAprCsv(const RunFile& file) {
  if (!IsPlainText(file)) return false;
  const auto columns = SplitAtCommas(Trim(file.bytes.substr(0, file.bytes.find_first_of("\r\n"))));
  return columns.size() > 1 && columns[0] == "layer" && FindAprTap(columns[1]);
}

RunRecord ReadAprCsv(const RunFile& file) {
  RunRecord run;
  run.header.std_kind = StdKind::sample;
  run.header.backend = "apr";
  run.report.remarks.push_back(
      "the columns are taken for stds of the sample (n - 1); which tokens are pooled is not said");
  const auto lines = LinesOf(file.bytes);
  const auto columns = SplitAtCommas(lines[0]);
  size_t layers = 0;
  for (size_t i = 1; i < lines.size(); ++i) {
    if (Trim(lines[i]).empty()) continue;
    const auto cells = SplitAtCommas(lines[i]);
    const auto layer = ParseCount(cells[0]);
    if (!layer || cells.size() != columns.size()) {
      run.report.Unexplained(fmt::format("line {}: '{}'", i + 1, Printable(lines[i])));
      continue;
    }
    layers = std::max(layers, *layer + 1);
    for (size_t c = 1; c < cells.size(); ++c) {
      const auto tap = FindAprTap(columns[c]);
      const auto std = ParseFigure(cells[c]);
      if (tap && InfoOf(*tap).per_layer && std)
        run.pooled[{static_cast<int>(*layer), *tap}].figures.std = std;
      else
        run.report.Unexplained(fmt::format("line {}, column '{}': '{}'", i + 1,
                                           Printable(columns[c]), Printable(cells[c])));
    }
  }
  run.header.layers = layers;
  return run;
}

}  // namespace lab
