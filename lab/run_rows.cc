#include "lab/run_rows.h"

#include <fmt/format.h>

#include <set>

#include "lab/error.h"
#include "lab/run_headers.h"

namespace lab {

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

RunRows::RunRows(const RunRecord& run, const Qwen2Config& config) : run_(run) {
  const auto last = LastToken(run);
  if (!run.has_tensors() || !last)
    throw Error(kNotComparable,
                fmt::format("{}: --local needs tensors; this file holds no whole row of values",
                            run.header.path));
  tokens_ = *last + 1;
  ids_ = run.header.ids.value_or(std::vector<int32_t>(tokens_, 0));
  CheckFits(config);
}

void RunRows::CheckFits(const Qwen2Config& c) const {
  const auto refuse = [&](const std::string& why) {
    throw Error(kNotComparable, fmt::format("{}: {}", run_.header.path, why));
  };
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

const StoredRow* RunRows::Row(const TapPlace& place, size_t token) const {
  const auto it = run_.tokens.find({place.first, place.second, token});
  return it != run_.tokens.end() && it->second.row ? &*it->second.row : nullptr;
}
bool RunRows::HasAny(const TapPlace& place) const {
  for (size_t t = 0; t < tokens_; ++t)
    if (Row(place, t)) return true;
  return false;
}

StoredType RunRows::TypeOf(const TapPlace& place) const {
  StoredType type = run_.header.rounded_to.value_or(StoredType::f32);
  for (size_t t = 0; t < tokens_; ++t)
    if (const StoredRow* row = Row(place, t)) type = Narrower(type, row->type);
  return type;
}

StoredType RunRows::Narrowest() const {
  StoredType narrowest = StoredType::f32;
  std::set<TapPlace> places;
  for (const auto& [place, record] : run_.tokens) places.insert({place.tap, place.layer});
  for (const TapPlace& place : places) narrowest = Narrower(narrowest, TypeOf(place));
  return narrowest;
}

}  // namespace lab
