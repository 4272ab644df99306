#pragma once
// The closed list of things that another program may show under the name of one of our taps.
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lab/facts.h"
#include "model/qwen2.h"

namespace lab {

/// One of them, made of our own values.
struct Retapping {
  std::string text;        ///< "our `q_proj` (query projection before the bias)"
  bool plain = false;      ///< our tap of that name, unchanged
  bool same_pool = false;  ///< over all tokens the same values as the plain one, in another order
  /// Its facts for a layer and token; absent where our run lacks what it is made of.
  std::function<std::optional<Facts>(int layer, size_t token)> make;
};

/// For one tap, the plain one first:
///   every other tap of ours that is as wide (bias before or after, RoPE before or after, residual
///     added or not, gate and up exchanged), the tap of the layer before and after;
///   q, k and v side by side before the bias, after RoPE;
///   times 1/sqrt(head_dim); RoPE of interleaved pairs; RoPE of float32 angles;
///   a norm without its weight; pairs of RoPE side by side, heads in reverse, [dim, head] for
///     [head, dim], the whole tensor as [channel, token]; rounded to f16, to bf16.
/// `ours` must outlive the list. Without `config` whatever needs heads, RoPE or eps is left out.
/// figures_only: no values will be compared, so neither are they read where figures do.
std::vector<Retapping> RetappingsOf(Tap tap, const RunRecord& ours, const Qwen2Config* config,
                                    bool figures_only);

}  // namespace lab
