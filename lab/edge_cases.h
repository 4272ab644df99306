#pragma once
#include "lab/case.h"

namespace lab {

/// The cases that captured inputs do not hold: zeros, sums without rounding, outliers, extreme and
/// subnormal scales, every scale code, odd shapes, ties, NaN and Inf. Named edge.OP.WHAT, with the
/// block type between the two where there is one; the same bytes on every machine. Written to
/// cases/edges by `lab capture --edges`.
CaseFile EdgeCases();

}  // namespace lab
