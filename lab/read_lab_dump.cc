// Reader of lab's own tensor dumps (notes/formats.md).
#include <charconv>

#include "lab/error.h"
#include "lab/names.h"
#include "lab/run_readers.h"
#include "lab/safetensors.h"

namespace lab {
namespace {

// "L03.ffn_swiglu" or a bare name outside the layers.
std::optional<std::pair<int, Tap>> ParseTapPath(std::string_view path) {
  int layer = kNoLayer;
  std::string_view name = path;
  if (path.size() > 1 && path[0] == 'L' && path[1] >= '0' && path[1] <= '9') {
    const char* end = path.data() + path.size();
    const auto [stop, error] = std::from_chars(path.data() + 1, end, layer);
    if (error != std::errc() || stop == end || *stop != '.') return std::nullopt;
    name = path.substr(static_cast<size_t>(stop + 1 - path.data()));
  }
  const auto tap = FindTap(name);
  if (!tap || InfoOf(*tap).per_layer != (layer != kNoLayer)) return std::nullopt;
  return std::pair(layer, *tap);
}

}  // namespace

bool IsLabDump(const RunFile& file) {
  // The header of a safetensors file is JSON; what lab writes begins with its own metadata.
  const std::string_view head = file.bytes.substr(0, 4096);
  return head.size() > 8 && head.substr(8).starts_with("{\"__metadata__\":{\"backend\":");
}

RunRecord ReadLabDump(const RunFile& file) {
  const auto tensors = std::make_shared<const Safetensors>(file.path);
  RunRecord run;
  run.owners.push_back(tensors);
  RunHeader& h = run.header;
  const auto text = [&](const char* key) -> std::optional<std::string> {
    const auto it = tensors->metadata().find(key);
    if (it == tensors->metadata().end() || it->second.empty()) return std::nullopt;
    return it->second;
  };
  h.model = text("model"), h.sha256 = text("sha256"), h.backend = text("backend");
  h.contract = text("contract"), h.kv = text("kv");
  if (const auto ids = text("ids"); ids && !(h.ids = ParseIds(*ids)))
    Fail("{}: metadata 'ids': no list of token ids", file.path);
  if (const auto dim = text("head_dim"); dim && !(h.head_dim = ParseCount(*dim)))
    Fail("{}: metadata 'head_dim': no number", file.path);
  h.std_kind = StdKind::population;
  h.arithmetic = ArithmeticOf(h.backend);
  for (const SafetensorsEntry& e : tensors->entries()) {
    const auto place = ParseTapPath(e.name);
    // Rows without values take no bytes: a shape may claim any number of them.
    if (!place || e.shape.size() != 2 || e.data.empty() || (e.dtype != "F32" && e.dtype != "F64")) {
      run.report.Unexplained(fmt::format("tensor '{}'", Printable(e.name)));
      continue;
    }
    if (h.ids && e.shape[0] != h.ids->size())
      Fail("{}: tensor '{}' has {} tokens, the run {}", file.path, e.name, e.shape[0],
           h.ids->size());
    const StoredType type = e.dtype == "F64" ? StoredType::f64 : StoredType::f32;
    const size_t row_bytes = e.shape[1] * BytesOf(type);
    for (size_t t = 0; t < e.shape[0]; ++t)
      run.AddRow({place->second, place->first, t},
                 {type, e.data.subspan(t * row_bytes, row_bytes)});
  }
  return run;
}

}  // namespace lab
