#pragma once
// Laws that the taps of one run must satisfy among themselves. A run that breaks one has
// mislabelled a tap or computes it wrong; no second run is needed to see it.
#include <string_view>
#include <vector>

#include "lab/run_record.h"

namespace lab {

/// One law at one place.
struct LawCheck {
  std::string_view law;           ///< as it is printed: "attn_residual = input + attn_out"
  Place place;                    ///< of the tap that breaks it, if any
  bool pooled = false;            ///< of a pooled figure; the token then means nothing
  double error = 0, allowed = 0;  ///< where error / allowed is largest
  size_t channel = 0;
  bool by_values = false;  ///< element by element; else what must hold of the figures

  bool holds() const { return error <= allowed; }
  double ratio() const;  ///< error / allowed, 0/0 is 0
};

/// Every law at every place where the run has what it needs. On rows of values, with u half an ulp
/// of the type in which they are stored:
///   attn_residual = input + attn_out, layer_out = attn_residual + ffn_out (input: layer_out of the
///     layer before, or embedding), ffn_swiglu = ffn_silu * ffn_up: exact where the header says in
///     what the run computes and stores, else 4 ulp at the size of the operands
///   ffn_silu = silu(ffn_gate): 4 ulp, and 1e-6 of its own size for exp
///   q_rope, k_rope: every pair i, i + head_dim/2 keeps its length within 4u (without head_dim: the
///     whole row)
///   attn_norm, ffn_norm, final_norm: y_i rms / x_i is one weight for all tokens, within
///     2 (sqrt(n)/2 + 4) u
///   |attn_ctx| <= max |v_bias| over positions up to the token's and channels, (1 + (n + 3) u),
///   plus
///     the rounding of the KV cache
///   qkv = q_bias | k_bias | v_bias
/// On figures alone: mean of a sum = sum of the means; l2 kept by RoPE; sum and l2 of qkv from its
/// parts; absmax of the product and of attn_ctx; of every row, rms^2 = mean^2 + std^2, |mean| <=
/// rms
/// <= absmax and absmax = max(|min|, |max|).
std::vector<LawCheck> CheckLaws(const RunRecord& run);

}  // namespace lab
