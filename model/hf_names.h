#pragma once
// What Hugging Face, APR and GGUF call the same things of a qwen2 model.
#include <string>
#include <string_view>

#include "model/weight_file.h"

namespace lab {

/// model.layers.3.self_attn.q_proj.weight -> blk.3.attn_q.weight, also without "model."; a name
/// that is none of Hugging Face's stays as it is.
std::string GgufTensorName(std::string_view hf);
/// The reverse.
std::string HfTensorName(std::string_view gguf);

/// Finds the configuration of a qwen2 model among the metadata under any name in use and fills in
/// parts.spelling. Each of `prefixes` may stand in front of a name; `hf`: absent keys are spelled
/// as Hugging Face does, else as APR does, behind the first prefix. Whole numbers where fractions
/// belong become fractions. Throws Error when two names give one size different values.
void SpellQwen2Keys(WeightFileParts& parts, std::span<const std::string_view> prefixes, bool hf);

}  // namespace lab
