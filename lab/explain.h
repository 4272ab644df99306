#pragma once
// lab diff --explain: the closed list of ways in which a tap of another program may be a different
// thing than ours of that name. Each is tried on our values; the one that makes the difference
// vanish is named.
#include <string>
#include <vector>

#include "lab/facts.h"
#include "lab/method_error.h"
#include "lab/run_record.h"
#include "model/qwen2.h"

namespace lab {

enum class Sureness {
  certain,   ///< all values were compared, and no other explanation comes within 10 times the best
  likely,    ///< statistics, no other explanation comes within 10 times the best
  possible,  ///< another explanation fits as well, or little was compared
};
std::string_view NameOf(Sureness sureness);

/// What one tap of theirs is, in all layers where they have it.
struct Explanation {
  std::string run;  ///< "A" or "B"
  Tap tap;
  std::string text;    ///< "our `q_proj|k_proj|v_proj` (before the bias), pooled over tokens 0-6"
  std::string tokens;  ///< the part of `text` that says which tokens; empty: each its own
  bool fits = false;   ///< false: nothing of the list explains the tap, `text` comes closest
  bool as_named = false;  ///< no re-tapping: it is our tap of that name
  size_t places = 0;      ///< how many were compared
  double residual = 0;    ///< median over them of the proven distance / norm
  std::string runner_up;  ///< the next best reading, and its residual; empty if there is none
  double runner_up_residual = 0;
  Evidence evidence = Evidence::nothing;
  Sureness sureness = Sureness::possible;
};

/// Explains every tap of `theirs` by the values of `ours`, which holds the tokens of the same run
/// one by one (a dump, a trace, or an oracle's pass). `contract`: the larger of both runs'; a
/// reading fits where it brings every place within four times its method error. `config`: sizes of
/// the model, for RoPE, heads and norms; null leaves these readings out.
std::vector<Explanation> ExplainRun(const RunRecord& ours, const RunRecord& theirs,
                                    const RunContract& contract, const Qwen2Config* config);

}  // namespace lab
