#pragma once
#include <map>
#include <string>

namespace lab {

/// Median time by benchmark name, in nanoseconds.
using Medians = std::map<std::string, double>;

double Nanoseconds(double value, const std::string& unit);

/// The medians in a file that --benchmark_out wrote (of single runs where nothing was repeated).
/// Throws Error.
Medians ReadMedians(const std::string& path);

/// "5%" or "5" as 0.05. Throws Error.
double ParseSlowdown(const std::string& text);

/// What became slower by more than `most`, worst first, as a table on standard error (standard
/// output may be JSON). Throws Error (exit 3) where the two share no name. Returns the exit code: 5
/// if anything did.
int CompareWithBaseline(const Medians& now, const Medians& before, double most);

}  // namespace lab
