#pragma once
// Taps: the named places of the forward pass. taps.def is the list; TapSink is who looks.
#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/tap_sums.h"

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

/// One tap of `tokens` neighbouring tokens: the values, and on a device, of which copying them is
/// what tracing costs, their sums beside them or in their place.
template <class T>
struct TapView {
  Tap tap;
  int layer;
  size_t first_token;                  ///< position of the first
  size_t tokens, n;                    ///< n values for each token
  size_t stride;                       ///< from token to token
  const T* values;                     ///< null on a device unless wanted
  std::span<const TapSums> sums = {};  ///< of all pieces, token by token; none unless on a device

  std::span<const TapSums> SumsOf(size_t token) const {
    return sums.subspan(token * TapSums::Pieces(n), TapSums::Pieces(n));
  }
};

/// Who looks at the taps of a pass. Taps come in the order of the pass, on a device perhaps some
/// steps later, but before Run returns. Values and sums must be copied: the buffers are reused.
template <class T>
class TapSink {
 public:
  virtual ~TapSink() = default;
  virtual bool Wants(Tap tap, int layer) const = 0;
  /// What it takes of a tap that it wants, where the pass is on a device. Elsewhere it gets values.
  virtual bool WantsValues(Tap, int /*layer*/) const { return true; }
  virtual bool WantsSums(Tap, int /*layer*/) const { return false; }
  virtual void OnTap(const TapView<T>& view) = 0;
};

}  // namespace lab
