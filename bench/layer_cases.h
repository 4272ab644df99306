#pragma once
#include "lab/case.h"
#include "model/qwen2.h"

namespace lab {

/// Every op of one layer on the whole matrices of a model, with `tokens` tokens of random
/// activations (normal, one channel large) behind `depth` positions; lm_head and the embedding; and
/// of each further block type that a role of a matrix has in other layers the first. No pass is
/// run. Weights are those of the model, which must outlive the cases.
std::vector<Case> LayerCases(const Qwen2& model, size_t layer, size_t tokens, size_t depth);

}  // namespace lab
