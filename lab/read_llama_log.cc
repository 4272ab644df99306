// Reader of llama.cpp's tensor log (llama-debug --verbose, eval-callback): of each tensor of the
// graph the operation, the shape, the corners with four digits after the point, and the sum. The
// operation tells apart what has one name (three values are called Qcur); lab/taps.def has the
// names.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lab/error.h"
#include "lab/names.h"
#include "lab/run_readers.h"

namespace lab {
namespace {

constexpr std::string_view kPrefixes[] = {"common_debug_cb_eval:", "ggml_debug:"};
constexpr size_t kCorner = 3;  // values printed at each end of a dimension
// A log prints corners, so that a shape may claim any number of tokens; llama.cpp takes 512 a pass
// unless --ubatch-size says otherwise.
constexpr size_t kMostTokensInPass = 65536;

std::optional<std::string_view> TensorLine(std::string_view line) {
  for (const std::string_view prefix : kPrefixes)
    if (const auto rest = After(line, prefix)) return rest;
  return std::nullopt;
}

// "Qcur-3 = (f32) MUL_MAT(blk.3.attn_q.weight{1536, 1536, 1, 1}, ...}) = {1536, 7, 1, 1}"
struct TensorHead {
  std::string_view name, type, op, operands;
  size_t shape[4] = {};
};

std::optional<TensorHead> ParseHead(std::string_view text) {
  TensorHead head;
  const size_t type = text.find(" = ("), type_end = text.find(')', type);
  const size_t shape = text.rfind("= {");
  if (type == std::string_view::npos || type_end == std::string_view::npos ||
      shape == std::string_view::npos || shape < type_end || !text.ends_with('}'))
    return std::nullopt;
  head.name = Trim(text.substr(0, type));
  head.type = text.substr(type + 4, type_end - type - 4);
  const std::string_view call = Trim(text.substr(type_end + 1, shape - type_end - 1));
  const size_t open = call.find('(');
  if (open == std::string_view::npos) return std::nullopt;
  head.op = Trim(call.substr(0, open));
  head.operands = call.substr(open + 1);
  const auto sizes = SplitAtCommas(text.substr(shape + 3, text.size() - shape - 4));
  if (sizes.size() != 4) return std::nullopt;
  for (size_t i = 0; i < 4; ++i) {
    const auto size = ParseCount(sizes[i]);
    if (!size || *size == 0) return std::nullopt;
    head.shape[i] = *size;
  }
  return head;
}

// Steps between the taps, by operation: views, the cache, the norms before their weight, attention
// in parts, the last layer's choice of rows.
bool IsBetweenTaps(const TensorHead& head) {
  for (const std::string_view op :
       {"VIEW", "PERMUTE", "RESHAPE", "TRANSPOSE", "CONT", "CPY", "SET_ROWS", "GET_ROWS",
        "RMS_NORM", "FLASH_ATTN_EXT", "SOFT_MAX"})
    if (head.op == op) return true;
  return head.name.starts_with("kq") && head.op == "MUL_MAT";
}

// What a tensor is, if it is a tap.
std::optional<std::pair<Tap, int>> TapOf(const TensorHead& head) {
  std::string_view name = head.name;
  int layer = kNoLayer;
  const size_t dash = name.rfind('-');
  if (name.starts_with("node_")) {
    // Outputs of attention have no name of their own; their weight has one.
    const auto block = After(head.operands, "blk.");
    if (!block || head.operands.find(".attn_output.weight{") == std::string_view::npos)
      return std::nullopt;
    const auto number = ParseCount(block->substr(0, block->find('.')));
    if (!number) return std::nullopt;
    name = "node_N", layer = static_cast<int>(*number);
  } else if (dash != std::string_view::npos) {
    const auto number = ParseCount(name.substr(dash + 1));
    if (!number) return std::nullopt;
    name = name.substr(0, dash), layer = static_cast<int>(*number);
  }
  const std::string wanted = fmt::format("{} ({})", name, head.op);
  for (size_t t = 0; t < Taps().size(); ++t)
    if (Taps()[t].llama_cpp == wanted && Taps()[t].per_layer == (layer != kNoLayer))
      return std::pair(static_cast<Tap>(t), layer);
  return std::nullopt;
}

class LlamaLogReader {
 public:
  explicit LlamaLogReader(const RunFile& file) : path_(file.path), lines_(LinesOf(file.bytes)) {}

  RunRecord Read() {
    run_.header.backend = "llama.cpp";
    run_.header.steps.emplace();
    while (at_ < lines_.size()) {
      if (const auto text = TensorLine(lines_[at_]))
        TakeTensor(*text);
      else
        TakeOther(lines_[at_++]);
    }
    if (ids_ && ids_->size() == tokens_)
      run_.header.ids = std::move(ids_);
    else
      run_.report.remarks.push_back(
          fmt::format("no token list for the {} tokens that were run", tokens_));
    run_.report.remarks.push_back(fmt::format(
        "{} tensors, {} of them taps; {} lines of other output", tensors_, taps_, others_));
    return std::move(run_);
  }

 private:
  void Unexplained(size_t line, std::string_view text) {
    run_.report.Unexplained(fmt::format("line {}: '{}'", line + 1, Printable(Trim(text))));
  }

  // Output beside the tensors; some of it says what was run.
  void TakeOther(std::string_view line) {
    if (Trim(line).empty()) return;
    ++others_;
    RunHeader& h = run_.header;
    const auto after = [&](std::string_view mark) -> std::optional<std::string> {
      const size_t at = line.find(mark);
      if (at == std::string_view::npos) return std::nullopt;
      return std::string(Trim(line.substr(at + mark.size())));
    };
    if (const auto text = after(".block_count u32"); text && text->starts_with("= "))
      h.layers = ParseCount(text->substr(2));
    if (const auto text = after("general.architecture str"); text && text->starts_with("= "))
      h.architecture = text->substr(2);
    if (const auto text = after("tensors from "))
      h.model = text->substr(0, text->find(" (version"));
    if (const auto text = After(line, "Token ids (")) TakeIds(*text);
  }

  // "Token ids (7):" and then "What(3838)  is(374) ..." up to an empty line.
  void TakeIds(std::string_view count) {
    const auto expected = ParseCount(count.substr(0, count.find(')')));
    std::vector<int32_t> ids;
    for (; at_ < lines_.size() && !Trim(lines_[at_]).empty(); ++at_) {
      ++others_;
      const std::string_view line = lines_[at_];
      for (size_t open = line.find('('); open != std::string_view::npos;
           open = line.find('(', open + 1)) {
        const size_t close = line.find(')', open);
        if (close == std::string_view::npos) break;
        if (const auto id = ParseCount(line.substr(open + 1, close - open - 1)))
          ids.push_back(static_cast<int32_t>(*id));
      }
    }
    // A token whose own text is a number in parentheses would count twice.
    if (expected == ids.size()) ids_ = std::move(ids);
  }

  void TakeTensor(std::string_view text) {
    const size_t line = at_++;
    ++tensors_;
    const auto head = ParseHead(text);
    const auto tap = head ? TapOf(*head) : std::nullopt;
    if (!head || (!tap && !IsBetweenTaps(*head))) Unexplained(line, text);
    if (head && head->name.starts_with("cache_k_") && head->op == "SET_ROWS")
      run_.header.kv = std::string(head->type);
    if (!head || !tap) return SkipValues();
    const auto [which, layer] = *tap;
    if (which == Tap::q_rope) run_.header.head_dim = head->shape[0];
    if (which == Tap::embedding) StartPass(line, head->shape[1]);
    TakeValues(line, *head, which, layer);
  }

  // Each pass through the graph begins with the embedding.
  void StartPass(size_t line, size_t tokens) {
    if (tokens > kMostTokensInPass)
      Fail("{}: line {}: a pass of {} tokens; lab reads passes of at most {}", path_, line + 1,
           tokens, kMostTokensInPass);
    first_ = tokens_, tokens_ += tokens;
    run_.header.steps->push_back({tokens > 1 || first_ == 0, first_, tokens});
  }

  bool InValues() const { return at_ < lines_.size() && !TensorLine(lines_[at_]); }

  void SkipValues() {
    while (InValues() && Trim(lines_[at_]).find_first_of("[].") == 0) ++at_;
    if (InValues() && After(Trim(lines_[at_]), "sum =")) ++at_;
  }

  // Heads of a tensor [head_dim, heads, tokens] lie side by side in a row of ours.
  void TakeValues(size_t line, const TensorHead& head, Tap tap, int layer) {
    const bool by_head = head.shape[2] > 1 || tap == Tap::q_rope || tap == Tap::k_rope;
    const size_t width = head.shape[0] * (by_head ? head.shape[1] : 1);
    const size_t rows = by_head ? head.shape[2] : head.shape[1];
    const size_t pass = tokens_ - first_;
    // The last layer is computed for the last token only where one row is left.
    const bool last_only = rows == 1 && pass > 1;
    if (head.shape[3] != 1 || (rows != pass && !last_only)) {
      Unexplained(line, lines_[line]);
      return SkipValues();
    }
    ++taps_;
    const size_t first = last_only ? tokens_ - 1 : first_;
    size_t depth = 0, index[3] = {}, printed = 0;  // index: of the rows at each depth
    double magnitude = 0;
    for (; InValues(); ++at_) {
      const std::string_view text = Trim(lines_[at_]);
      if (const auto sum = After(text, "sum =")) {
        const double mean = printed > 0 ? magnitude / static_cast<double>(printed) : 0;
        TakeSum({tap, layer, first}, ParseFigure(*sum), width, rows, mean);
        ++at_;
        return;
      }
      if (text == "[" && depth < 2) {
        index[++depth] = 0;
      } else if ((text == "]" || text == "],") && depth > 0) {
        ++index[--depth];
      } else if (text == "..." || text == "...,") {
        const size_t size = depth == 2 ? head.shape[1] : depth == 1 ? head.shape[2] : 1;
        if (size > kCorner) index[depth] = size - kCorner;
      } else if (text.starts_with('[') && depth == 2) {
        const size_t token = by_head ? index[1] : index[2];
        const size_t channel = by_head ? index[2] * head.shape[0] : 0;
        const bool good = token < rows && channel < width &&
                          TakeRow(text, {tap, layer, first + token}, channel, head.shape[0], width,
                                  printed, magnitude);
        if (!good) Unexplained(at_, lines_[at_]);
        ++index[2];
      } else {
        Unexplained(at_, lines_[at_]);
      }
    }
    Unexplained(line, fmt::format("{} has no sum", head.name));
  }

  // "[ 0.0269, 0.0180, ..., 0.0560 ],": the first and the last of `n` values.
  bool TakeRow(std::string_view text, const Place& place, size_t channel, size_t n, size_t width,
               size_t& printed, double& magnitude) {
    text.remove_prefix(1);
    const size_t close = text.rfind(']');
    if (close == std::string_view::npos) return false;
    const auto cells = SplitAtCommas(text.substr(0, close));
    TokenRecord& record = run_.tokens[place];
    record.figures.n = width;
    for (size_t i = 0, at = 0; i < cells.size(); ++i) {
      if (cells[i] == "...") {
        if (cells.size() - i - 1 > n) return false;
        at = n - (cells.size() - i - 1);
        continue;
      }
      const auto figure = ParseFigure(cells[i]);
      if (!figure || at >= n) return false;
      record.values[channel + at++] = *figure;
      ++printed, magnitude += std::abs(figure->value);
    }
    return true;
  }

  // The sum is accumulated in float32, value after value: off by at most count u sum |x|, with
  // the mean |x| of the printed values for that of all.
  void TakeSum(const Place& place, std::optional<Figure> sum, size_t width, size_t rows,
               double mean) {
    if (!sum) return Unexplained(at_, lines_[at_]);
    const auto count = static_cast<double>(width * rows);
    sum->rounding += count * 0x1p-24 * count * mean;
    if (rows == 1) {
      run_.tokens[place].figures.sum = sum;
      return;
    }
    PooledRecord& pooled = run_.pooled[{place.layer, place.tap}];
    pooled.tokens = {};
    pooled.tokens.Add(place.token, rows);
    pooled.figures.n = width * rows;
    pooled.figures.sum = sum;
  }

  const std::string& path_;
  const std::vector<std::string_view> lines_;
  size_t at_ = 0;
  RunRecord run_;
  std::optional<std::vector<int32_t>> ids_;
  size_t first_ = 0, tokens_ = 0;  // of the pass at hand; of all passes
  size_t tensors_ = 0, taps_ = 0, others_ = 0;
};

}  // namespace

bool IsLlamaLog(const RunFile& file) {
  if (!IsPlainText(file)) return false;
  return std::any_of(std::begin(kPrefixes), std::end(kPrefixes), [&](std::string_view prefix) {
    const size_t at = file.bytes.find(prefix);
    return at != std::string_view::npos && (at == 0 || file.bytes[at - 1] == '\n');
  });
}

RunRecord ReadLlamaLog(const RunFile& file) {
  return LlamaLogReader(file).Read();
}

}  // namespace lab
