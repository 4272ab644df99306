#pragma once
// Taps: the named places of the forward pass. taps.def is the list; TapSink is who looks.
#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lab {

enum class Tap {
#define TAP(name, scope, meaning, llama_cpp, hf, apr) name,
#include "lab/taps.def"
#undef TAP
};

struct TapInfo {
  std::string_view name;
  bool per_layer;
  std::string_view meaning, llama_cpp, hf, apr;
};

/// In the order of the forward pass, indexed by Tap.
std::span<const TapInfo> Taps();
inline const TapInfo& InfoOf(Tap tap) {
  return Taps()[static_cast<size_t>(tap)];
}

constexpr int kNoLayer = -1;  ///< the layer of a tap that is outside the layers

/// "L03.ffn_swiglu", or the bare name outside the layers.
std::string TapPath(Tap tap, int layer);

/// A set of (tap, layer) chosen by globs, each matched against the bare name and the path.
class TapFilter {
 public:
  /// No globs: everything. Throws Error (exit 3) for a glob that selects nothing in `layers`
  /// layers.
  TapFilter(std::span<const std::string> globs, size_t layers);
  bool Has(Tap tap, int layer) const {
    return wanted_[static_cast<size_t>(tap)][static_cast<size_t>(layer + 1)];
  }

 private:
  std::vector<std::vector<bool>> wanted_;  // [tap][layer + 1]
};

/// The values of one tap for `tokens` neighbouring tokens.
template <class T>
struct TapView {
  Tap tap;
  int layer;
  size_t first_token;  ///< position of the first
  size_t tokens, n;    ///< n values for each token
  size_t stride;       ///< from token to token
  const T* values;
};

/// Who looks at the taps of a pass. Values must be copied: the buffer is reused.
template <class T>
class TapSink {
 public:
  virtual ~TapSink() = default;
  virtual bool Wants(Tap tap, int layer) const = 0;
  virtual void OnTap(const TapView<T>& view) = 0;
};

}  // namespace lab
