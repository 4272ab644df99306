#pragma once
#include <optional>
#include <string>
#include <vector>

#include "lab/check_report.h"

namespace lab {

/// Judges outputs that were computed elsewhere, from a case that `lab capture --export` wrote: a
/// safetensors file of F32 or F64 tensors named as the outputs of the case ("y"; "gate" and "up"),
/// with the case's name and a dot before it when `cases` are several. Each is judged under
/// `contract`, or under every contract of its op in turn, and for gqa_attention under both KV
/// types. The chain of additions is taken to be one of all terms: nothing is known about the order.
///
/// Throws Error (exit 3) when the file holds no output of these cases or one of another shape.
std::vector<CheckLine> JudgeCandidate(const std::string& path, const std::vector<Case>& cases,
                                      std::optional<Contract> contract);

}  // namespace lab
