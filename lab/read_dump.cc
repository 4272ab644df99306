// Readers of tensor dumps in safetensors files: lab's own, and those of other programs, whose names
// and shapes a map (lab/name_map.h) explains.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "lab/error.h"
#include "lab/names.h"
#include "lab/run_readers.h"
#include "lab/safetensors.h"

namespace lab {
namespace {

std::optional<StoredType> TypeOf(std::string_view dtype) {
  if (dtype == "F64") return StoredType::f64;
  if (dtype == "F32") return StoredType::f32;
  if (dtype == "F16") return StoredType::f16;
  if (dtype == "BF16") return StoredType::bf16;
  return std::nullopt;
}

std::string Described(const SafetensorsEntry& e) {
  return fmt::format("tensor '{}', {} [{}]", Printable(e.name), e.dtype, fmt::join(e.shape, ", "));
}

// Where the values of a token lie: element (t, head, i) at the sum of index times stride.
struct Layout {
  size_t tokens = 1, heads = 1, width = 1;
  size_t token_stride = 0, head_stride = 0, stride = 1;

  size_t row() const { return heads * width; }
  bool RowsAreWhole() const {
    return stride == 1 && (heads == 1 || head_stride == width) && token_stride == row();
  }
};

Layout LayoutOf(const std::vector<size_t>& shape, const std::vector<Axis>& axes) {
  Layout layout;
  size_t stride = 1;
  for (size_t i = axes.size(); i-- > 0; stride *= shape[i]) {
    if (axes[i] == Axis::token) layout.tokens = shape[i], layout.token_stride = stride;
    if (axes[i] == Axis::head) layout.heads = shape[i], layout.head_stride = stride;
    if (axes[i] == Axis::channel || axes[i] == Axis::dim)
      layout.width = shape[i], layout.stride = stride;
  }
  return layout;
}

class DumpReader {
 public:
  DumpReader(const RunFile& file, const NameMap& names)
      : file_(file),
        names_(names),
        bytes_(FileBytes::Borrow(
            file.path, {reinterpret_cast<const uint8_t*>(file.bytes.data()), file.bytes.size()})),
        tensors_(ReadSafetensorsHeader(bytes_)) {
    run_.owners.push_back(file.owner);
  }

  // The metadata that lab writes; others may write them too.
  void TakeMetadata() {
    RunHeader& h = run_.header;
    h.model = Text("model"), h.sha256 = Text("sha256"), h.backend = Text("backend");
    h.contract = Text("contract"), h.kv = Text("kv");
    if (const auto ids = Text("ids"); ids && !(h.ids = ParseIds(*ids)))
      Fail("{}: metadata 'ids': no list of token ids", file_.path);
    if (const auto dim = Text("head_dim"); dim && !(h.head_dim = ParseCount(*dim)))
      Fail("{}: metadata 'head_dim': no number", file_.path);
    h.std_kind = StdKind::population;  // it is lab that computes them
  }

  RunRecord ReadOwn() {
    TakeMetadata();
    run_.header.arithmetic = ArithmeticOf(run_.header.backend);
    for (const SafetensorsEntry& e : tensors_.entries) {
      const auto named = names_.Find(e.name);
      const auto type = TypeOf(e.dtype);
      // Rows without values take no bytes: a shape may claim any number of them.
      if (!named || e.shape.size() != 2 || e.data.empty() || !type) {
        run_.report.Unexplained(Described(e));
        continue;
      }
      if (run_.header.ids && e.shape[0] != run_.header.ids->size())
        Fail("{}: tensor '{}' has {} tokens, the run {}", file_.path, e.name, e.shape[0],
             run_.header.ids->size());
      AddRows(e, *named, *type, LayoutOf(e.shape, {Axis::token, Axis::channel}), 0);
    }
    return std::move(run_);
  }

  RunRecord ReadForeign() {
    TakeMetadata();
    if (run_.header.kv && run_.header.kv != "f32" && run_.header.kv != "f16")
      run_.header.kv.reset();
    for (const SafetensorsEntry& e : tensors_.entries) Sort(e);
    NameLast();
    tokens_ = CountTokens();
    for (const auto& [place, tensor] : taps_) TakeTensor(*tensor.entry, tensor.named);
    if (!run_.header.ids)
      run_.report.remarks.push_back(
          fmt::format("no token ids: neither metadata 'ids' nor an integer tensor '{}'",
                      fmt::join(names_.token_tensors(), "', '")));
    run_.report.remarks.push_back(fmt::format("{} tensors, {} of them taps; the rest: {}",
                                              tensors_.entries.size(), taken_,
                                              run_.report.unexplained));
    NoteNarrowValues();
    return std::move(run_);
  }

 private:
  struct NamedTensor {
    const SafetensorsEntry* entry;
    NamedTap named;
  };

  std::optional<std::string> Text(const char* key) const {
    const auto it = tensors_.metadata.find(key);
    if (it == tensors_.metadata.end() || it->second.empty()) return std::nullopt;
    return it->second;
  }

  void Unexplained(const SafetensorsEntry& e, std::string_view why) {
    run_.report.Unexplained(fmt::format("{}: {}", Described(e), why));
  }

  // Taps are kept until the number of tokens is known.
  void Sort(const SafetensorsEntry& e) {
    const auto& ids = names_.token_tensors();
    if (std::find(ids.begin(), ids.end(), e.name) != ids.end() && TakeIds(e)) return;
    const auto named = names_.Find(e.name);
    if (!named) return Unexplained(e, "unknown name");
    if (!TypeOf(e.dtype)) return Unexplained(e, "not F64, F32, F16 or BF16");
    if (e.elements() == 0) return Unexplained(e, "no values");
    if (named->pattern->last) numbers_[named->pattern].push_back(named->number);
    const auto [it, is_new] =
        taps_.try_emplace({named->layer, named->tap}, NamedTensor{&e, *named});
    if (!is_new)
      Unexplained(e, fmt::format("'{}' is {} already", Printable(it->second.entry->name),
                                 TapPath(named->tap, named->layer)));
  }

  bool TakeIds(const SafetensorsEntry& e) {
    const bool wide = e.dtype == "I64" || e.dtype == "U64";
    if (!wide && e.dtype != "I32" && e.dtype != "U32") return false;
    std::vector<int32_t> ids;
    for (size_t i = 0; i < e.elements(); ++i) {
      int64_t id = 0;  // little-endian; of four bytes the upper half stays zero
      std::memcpy(&id, e.data.data() + i * (wide ? 8 : 4), wide ? 8 : 4);
      if (id < 0 || id > INT32_MAX)
        Fail("{}: tensor '{}': {} at {} is no token id", file_.path, Printable(e.name), id, i);
      ids.push_back(static_cast<int32_t>(id));
    }
    const bool one_row = std::all_of(e.shape.begin(), e.shape.end(),
                                     [&](size_t n) { return n == 1 || n == ids.size(); });
    if (ids.empty() || !one_row)
      Fail("{}: {}: lab reads dumps of one sequence", file_.path, Described(e));
    run_.header.ids = std::move(ids);
    return true;
  }

  // The tensor with the largest number is another tap, if the numbers go on from 0 without a gap.
  void NameLast() {
    for (auto& [pattern, numbers] : numbers_) {
      std::sort(numbers.begin(), numbers.end());
      const int last = numbers.back();
      if (last == 0 || numbers.size() != static_cast<size_t>(last) + 1) continue;
      const auto it = taps_.find({last + pattern->shift, *pattern->tap});
      if (it == taps_.end() || it->second.named.pattern != pattern) continue;
      NamedTensor tensor = it->second;
      tensor.named.tap = *pattern->last, tensor.named.layer = kNoLayer;
      taps_.erase(it);
      run_.header.layers = static_cast<size_t>(last);
      if (!taps_.try_emplace({kNoLayer, *pattern->last}, tensor).second)
        Unexplained(*tensor.entry, "is there under another name");
    }
  }

  // The shape with the outermost dimension first.
  std::vector<size_t> ShapeOf(const SafetensorsEntry& e) const {
    std::vector<size_t> shape = e.shape;
    if (names_.reversed_shapes()) std::reverse(shape.begin(), shape.end());
    return shape;
  }

  // Without a batch of one, and with the one token that a vector belongs to.
  static std::vector<size_t> Squeezed(std::vector<size_t> shape, size_t rank) {
    while (shape.size() > rank && shape.front() == 1) shape.erase(shape.begin());
    if (shape.size() + 1 == rank) shape.insert(shape.begin(), 1);
    return shape;
  }

  size_t CountTokens() const {
    if (run_.header.ids) return run_.header.ids->size();
    size_t most = 0;
    for (const auto& [place, tensor] : taps_) {
      const std::vector<size_t> shape = Squeezed(ShapeOf(*tensor.entry), 2);
      if (tensor.named.pattern->axes.empty() && shape.size() == 2) most = std::max(most, shape[0]);
    }
    return most;
  }

  // What the pattern says, else what the shape leaves no doubt about: [token, channel],
  // [token, head, dim] or [head, token, dim]. Empty: neither.
  std::vector<Axis> AxesOf(const TensorPattern& pattern, std::vector<size_t>& shape) const {
    if (!pattern.axes.empty()) {
      shape = Squeezed(shape, pattern.axes.size());
      return shape.size() == pattern.axes.size() ? pattern.axes : std::vector<Axis>{};
    }
    shape = Squeezed(shape, 2);
    if (shape.size() == 2) return {Axis::token, Axis::channel};
    if (shape.size() == 4) shape = Squeezed(shape, 3);
    if (shape.size() != 3) return {};
    if (shape[0] == tokens_ && shape[1] != tokens_) return {Axis::token, Axis::head, Axis::dim};
    if (shape[1] == tokens_ && shape[0] != tokens_) return {Axis::head, Axis::token, Axis::dim};
    return {};
  }

  void TakeTensor(const SafetensorsEntry& e, const NamedTap& named) {
    std::vector<size_t> shape = ShapeOf(e);
    const std::vector<Axis> axes = AxesOf(*named.pattern, shape);
    if (axes.empty())
      return Unexplained(e, "its axes are not clear; --names F.toml can say what they are");
    const Layout layout = LayoutOf(shape, axes);
    // One row where the run has several is that of the last token, as programs compute the logits.
    const bool last_only = layout.tokens == 1 && tokens_ > 1;
    if (layout.tokens != tokens_ && !last_only)
      return Unexplained(e, fmt::format("{} tokens, the run has {}", layout.tokens, tokens_));
    AddRows(e, named, *TypeOf(e.dtype), layout, last_only ? tokens_ - 1 : 0);
    ++taken_;
  }

  void AddRows(const SafetensorsEntry& e, const NamedTap& named, StoredType type,
               const Layout& layout, size_t first_token) {
    const size_t row_bytes = layout.row() * BytesOf(type);
    std::span<const uint8_t> data = e.data;
    if (!layout.RowsAreWhole()) data = Gather(e.data, BytesOf(type), layout);
    for (size_t t = 0; t < layout.tokens; ++t)
      run_.AddRow({named.tap, named.layer, first_token + t},
                  {type, data.subspan(t * row_bytes, row_bytes)});
  }

  // The same values, token after token.
  std::span<const uint8_t> Gather(std::span<const uint8_t> from, size_t bytes,
                                  const Layout& layout) {
    auto copy = std::make_shared<std::vector<uint8_t>>();
    copy->reserve(from.size());
    for (size_t t = 0; t < layout.tokens; ++t)
      for (size_t h = 0; h < layout.heads; ++h)
        for (size_t i = 0; i < layout.width; ++i) {
          const size_t at = t * layout.token_stride + h * layout.head_stride + i * layout.stride;
          const auto value = from.subspan(at * bytes, bytes);
          copy->insert(copy->end(), value.begin(), value.end());
        }
    run_.owners.push_back(copy);
    return *copy;
  }

  // A run in bfloat16 or half floats whose values were widened before they were stored.
  void NoteNarrowValues() {
    const auto holds = [](StoredType type, double x) {
      return !std::isfinite(x) || std::remainder(x, 2 * HalfUlp(x, type)) == 0;
    };
    const auto all_are = [&](StoredType type) {
      return std::all_of(run_.tokens.begin(), run_.tokens.end(), [&](const auto& record) {
        const StoredRow& row = *record.second.row;
        for (size_t i = 0; i < row.size(); ++i)
          if (!holds(type, row.At(i))) return false;
        return BytesOf(row.type) > 2;
      });
    };
    for (const StoredType type : {StoredType::bf16, StoredType::f16}) {
      if (run_.tokens.empty() || !all_are(type)) continue;
      run_.header.rounded_to = type;
      run_.report.remarks.push_back(fmt::format(
          "every value is a {} number: taken for a run that rounds to them", NameOf(type)));
      return;
    }
  }

  const RunFile& file_;
  const NameMap& names_;
  const FileBytes bytes_;
  const SafetensorsHeader tensors_;
  RunRecord run_;
  std::map<std::pair<int, Tap>, NamedTensor> taps_;
  std::map<const TensorPattern*, std::vector<int>> numbers_;  // of patterns whose last is another
  size_t tokens_ = 0, taken_ = 0;
};

// A size that fits the file, and the JSON header behind it.
bool IsSafetensors(const RunFile& file) {
  uint64_t size = 0;
  if (file.bytes.size() <= sizeof size || file.bytes[sizeof size] != '{') return false;
  std::memcpy(&size, file.bytes.data(), sizeof size);
  return size <= file.bytes.size() - sizeof size;
}

}  // namespace

bool IsLabDump(const RunFile& file) {
  // What lab writes begins with its own metadata.
  return IsSafetensors(file) && file.bytes.substr(8).starts_with("{\"__metadata__\":{\"backend\":");
}

RunRecord ReadLabDump(const RunFile& file) {
  return DumpReader(file, NameMap::BuiltIn()).ReadOwn();
}

bool IsForeignDump(const RunFile& file) {
  if (!IsSafetensors(file)) return false;
  try {
    const auto* bytes = reinterpret_cast<const uint8_t*>(file.bytes.data());
    const FileBytes borrowed = FileBytes::Borrow(file.path, {bytes, file.bytes.size()});
    const SafetensorsHeader header = ReadSafetensorsHeader(borrowed);
    return std::none_of(header.entries.begin(), header.entries.end(),
                        [](const SafetensorsEntry& e) { return e.name.ends_with(".weight"); });
  } catch (const Error&) {
    return true;  // so that reading it says what is wrong
  }
}

RunRecord ReadForeignDump(const RunFile& file) {
  return DumpReader(file, file.names).ReadForeign();
}

}  // namespace lab
