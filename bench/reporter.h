#pragma once
#include <benchmark/benchmark.h>

#include <set>

#include "bench/baseline.h"

namespace lab {

/// Hands medians and their spread on to Google Benchmark's reporter, and keeps the medians.
class MedianReporter : public benchmark::BenchmarkReporter {
 public:
  MedianReporter() : inner_(*benchmark::CreateDefaultDisplayReporter()) {}
  bool ReportContext(const Context& context) override { return inner_.ReportContext(context); }
  void ReportRuns(const std::vector<Run>& runs) override {
    std::vector<Run> shown;
    for (const Run& run : runs) {
      if (Shown(run)) shown.push_back(WithUnitsInNames(run));
      const bool single = run.run_type == Run::RT_Iteration && run.repetitions <= 1;
      if (!Skipped(run) && (single || run.aggregate_name == "median"))
        medians_[run.run_name.str()] =
            Nanoseconds(run.GetAdjustedRealTime(), benchmark::GetTimeUnitString(run.time_unit));
    }
    if (!shown.empty()) inner_.ReportRuns(shown);
  }
  void Finalize() override { inner_.Finalize(); }

  const Medians& medians() const { return medians_; }
  /// Whether a benchmark was skipped because its row is wrong.
  bool failed() const { return !failed_.empty(); }

  // Newer versions of Google Benchmark (1.9.1 does) call it `skipped`.
  template <class AnyRun>
  static bool Skipped(const AnyRun& run) {
    if constexpr (requires { run.error_occurred; })
      return run.error_occurred;
    else
      return static_cast<int>(run.skipped) != 0;
  }

 private:
  // Of a wrong row one line, not one for each repetition.
  bool Shown(const Run& run) {
    if (Skipped(run)) return failed_.insert(run.run_name.str()).second;
    return run.run_type == Run::RT_Iteration || run.aggregate_name == "median" ||
           run.aggregate_name == "cv";
  }

  // "GB/s" is a name already; a counter that is marked as a rate would be shown as "52/s".
  static Run WithUnitsInNames(Run run) {
    for (auto& [name, counter] : run.counters) counter.flags = benchmark::Counter::kDefaults;
    return run;
  }

  BenchmarkReporter& inner_;
  Medians medians_;
  std::set<std::string> failed_;
};

}  // namespace lab
