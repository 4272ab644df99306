#pragma once
#include <string>
#include <vector>

#include "lab/bisect.h"
#include "lab/made_by.h"
#include "lab/step_blame.h"
#include "lab/xray.h"

namespace lab {

/// The verdict line and a table of the `places` worst steps.
std::string BisectToText(const BisectResult& result, size_t places);
/// All steps and a summary, one record a line (notes/formats.md).
std::string BisectToJsonl(const BisectResult& result, const MadeBy& made_by);
/// 4 when the candidate's pass is not finite, 1 when a step is wrong, else 0.
int BisectExitCode(const BisectResult& result);

/// The ranking of `lab bisect --blame`; 4 when the candidate's logits are not finite, else 0.
std::string StepBlameToText(const StepBlame& blame);
std::string StepBlameToJsonl(const StepBlame& blame, const MadeBy& made_by);
int StepBlameExitCode(const StepBlame& blame);

/// What `lab bisect --xray` found; 1 when a weight is read wrongly, else 0.
std::string XrayToText(const std::vector<Xray>& xrays);
std::string XrayToJsonl(const std::vector<Xray>& xrays, const MadeBy& made_by);
int XrayExitCode(const std::vector<Xray>& xrays);

}  // namespace lab
