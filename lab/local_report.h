#pragma once
#include <string>

#include "lab/local.h"
#include "lab/table.h"

namespace lab {

/// text: the verdict, what is assumed, a table of the kinds of steps and the worst steps, and what
/// is not judged. jsonl: records step and summary (notes/formats.md). csv, md: all judged steps.
std::string LocalTo(Format format, const RunRecord& run, const LocalResult& result);
/// 3 when nothing is judged, 4 when a wrong value is not finite, 1 when a step is wrong, else 0.
int LocalExitCode(const LocalResult& result);

}  // namespace lab
