#include "lab/name_map.h"

#include <algorithm>
#include <array>
#include <limits>

#include "lab/error.h"
#include "lab/names.h"
#include "lab/run_readers.h"
#include "lab/toml_reader.h"

namespace lab {
namespace {

constexpr size_t kLongestName = 200;  // of a tensor; a longer one would only cost time
constexpr int kMostLayers = 10000;
constexpr std::string_view kAxisNames[] = {"token", "channel", "head", "dim"};

struct Fields {
  int number = kNoLayer;
  std::optional<Tap> tap;
};

bool Take(std::string_view field, std::string_view text, Fields& found) {
  if (field == "tap") {
    found.tap = FindTap(text);
    return found.tap.has_value();
  }
  const auto digits = [](char c) { return c >= '0' && c <= '9'; };
  const auto number = ParseCount(text);
  if (!number || *number >= kMostLayers || !std::all_of(text.begin(), text.end(), digits))
    return false;
  found.number = static_cast<int>(*number);
  return true;
}

// Whether the text is what the pattern describes. A field takes as much as it can.
bool Matches(std::string_view pattern, std::string_view text, Fields& found) {
  const size_t open = pattern.find('{');
  if (open == std::string_view::npos) return pattern == text;
  if (!text.starts_with(pattern.substr(0, open))) return false;
  const size_t close = pattern.find('}', open);
  for (size_t n = text.size() - open; n > 0; --n)
    if (Take(pattern.substr(open + 1, close - open - 1), text.substr(open, n), found) &&
        Matches(pattern.substr(close + 1), text.substr(open + n), found))
      return true;
  return false;
}

// "blk.{layer" or "{token}" would never match anything. "" if the fields are right.
std::string FieldProblem(std::string_view pattern) {
  for (size_t at = 0; (at = pattern.find_first_of("{}", at)) != std::string_view::npos; ++at) {
    const size_t close = pattern.find('}', at);
    const std::string_view key =
        close == std::string_view::npos ? "" : pattern.substr(at, close + 1 - at);
    if (key != "{layer}" && key != "{tap}")
      return fmt::format("name '{}': {{layer}} and {{tap}} are the fields", Printable(pattern));
    at = close;
  }
  return "";
}

// The names of one tap in HF's column of taps.def: with and without the model before it.
void AddHf(std::vector<TensorPattern>& patterns, Tap tap) {
  std::string name(InfoOf(tap).hf);
  if (name == "-") return;
  const bool is_input = name.ends_with(":input");
  if (is_input) name.resize(name.size() - std::string_view(":input").size());
  if (InfoOf(tap).per_layer)
    name = tap == Tap::layer_out ? "model.layers.{layer}" : "model.layers.{layer}." + name;
  const auto add = [&](const std::string& bare) {
    if (!is_input) patterns.push_back({bare, tap, 0, {}, {}});
    for (const char separator : {'.', ':'})
      patterns.push_back({bare + separator + (is_input ? "input" : "output"), tap, 0, {}, {}});
  };
  add(name);
  if (name.starts_with("model.")) add(name.substr(std::string_view("model.").size()));
}

// "Qcur (ROPE)" is "Qcur-3 (ROPE)" in a layer.
void AddLlamaCpp(std::vector<TensorPattern>& patterns, Tap tap) {
  const std::string_view column = InfoOf(tap).llama_cpp;
  const std::string_view name = column.substr(0, column.find(" ("));
  if (column == "-" || name == "node_N") return;
  const auto same_name = std::count_if(Taps().begin(), Taps().end(), [&](const TapInfo& t) {
    return t.llama_cpp.substr(0, t.llama_cpp.find(" (")) == name;
  });
  const std::string number = InfoOf(tap).per_layer ? "-{layer}" : "";
  const std::string bare = std::string(name) + number;
  patterns.push_back({bare + std::string(column.substr(name.size())), tap, 0, {}, {}});
  if (same_name == 1) patterns.push_back({bare, tap, 0, {}, {}});
}

}  // namespace

const NameMap& NameMap::BuiltIn() {
  static const NameMap map = [] {
    NameMap m;
    m.patterns_ = {{"L{layer}.{tap}", {}, 0, {}, {}}, {"{tap}", {}, 0, {}, {}}};
    for (size_t t = 0; t < Taps().size(); ++t) {
      AddHf(m.patterns_, static_cast<Tap>(t));
      AddLlamaCpp(m.patterns_, static_cast<Tap>(t));
    }
    for (const char* name : {"hidden_states.{layer}", "hidden_states[{layer}]"})
      m.patterns_.push_back({name, Tap::layer_out, -1, {}, Tap::final_norm});
    m.token_tensors_ = {"input_ids", "ids", "tokens", "inp_tokens"};
    return m;
  }();
  return map;
}

std::optional<NamedTap> NameMap::Find(std::string_view tensor) const {
  if (tensor.size() > kLongestName) return std::nullopt;
  for (const TensorPattern& p : patterns_) {
    Fields found;
    if (!Matches(p.name, tensor, found)) continue;
    NamedTap named = {p.tap ? *p.tap : *found.tap, found.number, &p, found.number};
    if (found.number != kNoLayer) named.layer += p.shift;
    if (named.tap == Tap::layer_out && found.number != kNoLayer && named.layer == kNoLayer)
      named.tap = Tap::embedding;
    if (named.layer < kNoLayer || InfoOf(named.tap).per_layer != (named.layer != kNoLayer))
      continue;
    return named;
  }
  return std::nullopt;
}

class NameMapReader : TomlReader {
 public:
  explicit NameMapReader(const std::string& path) : TomlReader(path) {}

  NameMap Read() {
    NameMap map = NameMap::BuiltIn();
    CheckKeys(root_, std::array{"tokens", "reversed_shapes", "tensors"});
    if (const auto name = Text(root_, "tokens")) map.token_tensors_ = {*name};
    if (const toml::node* flag = root_.get("reversed_shapes")) {
      if (!flag->is_boolean()) Bad(*flag, "reversed_shapes is neither true nor false");
      map.reversed_shapes_ = **flag->as_boolean();
    }
    std::vector<TensorPattern> patterns;
    const toml::array* tensors = root_["tensors"].as_array();
    if (!tensors || tensors->empty())
      Bad(root_, "there is no list 'tensors' of {{name = \"...\", tap = \"...\"}}");
    for (const toml::node& node : *tensors) {
      if (!node.is_table()) Bad(node, "an element of 'tensors' is no table");
      patterns.push_back(Pattern(*node.as_table()));
    }
    map.patterns_.insert(map.patterns_.begin(), patterns.begin(), patterns.end());
    return map;
  }

 private:
  // A mistyped key would be ignored silently.
  template <size_t n>
  void CheckKeys(const toml::table& t, const std::array<const char*, n>& known) const {
    const std::vector<std::string_view> names(known.begin(), known.end());
    for (const auto& [key, node] : t)
      if (std::find(names.begin(), names.end(), key.str()) == names.end())
        Bad(node, "unknown key '{}'{}; known: {}", Printable(key.str()),
            DidYouMean(key.str(), names), fmt::join(names, ", "));
  }

  std::optional<std::string> Text(const toml::table& t, const char* key) const {
    const toml::node* node = t.get(key);
    if (!node) return std::nullopt;
    if (!node->is_string()) Bad(*node, "{} is no text", key);
    return **node->as_string();
  }

  std::optional<Tap> TapOf(const toml::table& t, const char* key) const {
    const auto name = Text(t, key);
    if (!name) return std::nullopt;
    const auto tap = FindTap(*name);
    if (tap) return tap;
    std::vector<std::string_view> names;
    for (const TapInfo& info : Taps()) names.push_back(info.name);
    Bad(t, "{}: there is no tap '{}'{}; 'lab list taps' names them", key, Printable(*name),
        DidYouMean(*name, names));
  }

  TensorPattern Pattern(const toml::table& t) const {
    CheckKeys(t, std::array{"name", "tap", "shift", "axes", "last"});
    TensorPattern p;
    p.name = Text(t, "name").value_or("");
    if (p.name.empty()) Bad(t, "a tensor has no name");
    if (const std::string problem = FieldProblem(p.name); !problem.empty()) Bad(t, "{}", problem);
    p.tap = TapOf(t, "tap"), p.last = TapOf(t, "last");
    const bool any_tap = p.name.find("{tap}") != std::string::npos;
    const bool any_layer = p.name.find("{layer}") != std::string::npos;
    if (any_tap == p.tap.has_value())
      Bad(t, "'{}' needs a tap: either tap = \"...\" or {{tap}} in its name", Printable(p.name));
    if (p.tap && InfoOf(*p.tap).per_layer != any_layer)
      Bad(t, "'{}': {} is {} a layer, so the name {} {{layer}}", Printable(p.name),
          InfoOf(*p.tap).name, any_layer ? "not in" : "in", any_layer ? "has no" : "needs a");
    if (const toml::node* shift = t.get("shift")) {
      const auto value = shift->value_exact<int64_t>();
      if (!value || *value < -kMostLayers || *value > kMostLayers)
        Bad(*shift, "shift is no small whole number");
      p.shift = static_cast<int>(*value);
    }
    if (const auto axes = Text(t, "axes")) p.axes = Axes(t, *axes);
    return p;
  }

  std::vector<Axis> Axes(const toml::table& t, std::string_view text) const {
    std::vector<Axis> axes;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find(' ', at), text.size());
      const auto it =
          std::find(std::begin(kAxisNames), std::end(kAxisNames), text.substr(at, end - at));
      if (it != std::end(kAxisNames))
        axes.push_back(static_cast<Axis>(it - kAxisNames));
      else if (end > at)
        Bad(t, "axes: unknown '{}'", Printable(text.substr(at, end - at)));
      at = end + 1;
    }
    std::vector<Axis> sorted = axes;
    std::sort(sorted.begin(), sorted.end());
    const std::vector<Axis> flat = {Axis::token, Axis::channel},
                            by_head = {Axis::token, Axis::head, Axis::dim};
    if (sorted != flat && sorted != by_head)
      Bad(t, "axes: '{}' is neither token and channel, nor token, head and dim, in some order",
          Printable(text));
    return axes;
  }
};

NameMap NameMap::Read(const std::string& path) {
  return NameMapReader(path).Read();
}

}  // namespace lab
