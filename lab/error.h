#pragma once
// Errors are exceptions everywhere in lab. A kernel row never throws, because its caller has
// checked shapes; rows on a device may (lab/registry.h).
#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace lab {

/// What the process tells its caller; `lab --help` prints the same list.
enum ExitCode : int {
  kPass = 0,
  kNumericFailure = 1,
  kUsage = 2,  ///< usage, unknown name, bad value, unreadable input, unwritable output
  kNotComparable = 3,
  kNonFinite = 4,
  kTooSlow = 5,
  kInternal = 70,
  kCannotRun = 125,
  kInterrupted = 130,
  kClosedPipe = 141,
};

/// A message for the user: what is wrong, where (file, offset, tensor), what to do.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// Throws an Error with exit code 2, the code of everything the user or a file got wrong.
template <class... A>
[[noreturn]] void Fail(fmt::format_string<A...> format, A&&... args) {
  throw Error(kUsage, fmt::format(format, std::forward<A>(args)...));
}

}  // namespace lab
