#include "lab/taps.h"

#include <fmt/format.h>

#include "lab/error.h"
#include "lab/names.h"

namespace lab {
namespace {

constexpr bool layer = true, model = false;  // the scopes of taps.def
constexpr TapInfo kTaps[] = {
#define TAP(name, scope, meaning, llama_cpp, hf, apr) {#name, scope, meaning, llama_cpp, hf, apr},
#include "lab/taps.def"
#undef TAP
};

}  // namespace

std::span<const TapInfo> Taps() {
  return kTaps;
}

std::string TapPath(Tap tap, int layer_index) {
  const std::string_view name = InfoOf(tap).name;
  return layer_index == kNoLayer ? std::string(name) : fmt::format("L{:02}.{}", layer_index, name);
}

TapFilter::TapFilter(std::span<const std::string> globs, size_t layers) {
  std::vector<bool> used(globs.size());
  for (size_t t = 0; t < Taps().size(); ++t) {
    const auto tap = static_cast<Tap>(t);
    wanted_.emplace_back(layers + 1, false);
    const int first = Taps()[t].per_layer ? 0 : kNoLayer;
    const int last = Taps()[t].per_layer ? static_cast<int>(layers) - 1 : kNoLayer;
    for (int l = first; l <= last; ++l) {
      const std::string path = TapPath(tap, l);
      bool wanted = globs.empty();
      for (size_t g = 0; g < globs.size(); ++g) {
        if (!GlobMatch(globs[g], Taps()[t].name) && !GlobMatch(globs[g], path)) continue;
        wanted = used[g] = true;
      }
      wanted_[t][static_cast<size_t>(l + 1)] = wanted;
    }
  }
  for (size_t g = 0; g < globs.size(); ++g) {
    if (used[g]) continue;
    std::vector<std::string> paths;  // as exact as the glob is
    const bool with_layer = globs[g].find('.') != std::string::npos;
    for (size_t t = 0; t < Taps().size(); ++t)
      for (size_t l = 0; l < (with_layer && Taps()[t].per_layer ? layers : 1); ++l)
        paths.push_back(TapPath(static_cast<Tap>(t), with_layer && Taps()[t].per_layer
                                                         ? static_cast<int>(l)
                                                         : int{kNoLayer}));
    const std::vector<std::string_view> names(paths.begin(), paths.end());
    throw Error(kNotComparable,
                fmt::format("--taps: '{}' selects no tap of this model{}, which has layers 0 to "
                            "{}; 'lab list taps' names them",
                            Printable(globs[g]), DidYouMean(globs[g], names), layers - 1));
  }
}

}  // namespace lab
