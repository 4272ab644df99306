#pragma once
#include "lab/case.h"
#include "model/qwen2.h"

namespace lab {

/// The inputs of every op of one layer, and of the ops outside the layers, as the f32 oracle sees
/// them while it runs `ids`, rounded to float. Matrices keep `rows` rows spread evenly over the
/// whole (0: all), always with all columns. `query_tokens`: gqa_attention keeps only that many
/// queries, spread over the prompt and ending with the last (0: all), against all keys they can
/// see.
std::vector<Case> CaptureCases(const Qwen2& model, size_t layer, const std::vector<int32_t>& ids,
                               size_t rows, size_t query_tokens, int threads);

}  // namespace lab
