#pragma once
// What is fuzzed: every reader of lab as a function over bytes. libFuzzer calls these
// (fuzz_main.cc), and the ordinary tests replay the corpora through them (fuzz_test.cc).
#include <cstdint>
#include <span>
#include <string_view>

namespace lab::fuzz {

struct Target {
  std::string_view name;
  /// Reads the input as a file of its format and uses what came out, as verbs do. Throws what the
  /// reader throws, and std::logic_error when what it gave cannot be used.
  void (*read)(std::span<const uint8_t> input);
};

std::span<const Target> Targets();

/// Reads one input. An Error with exit code 2 is how a reader refuses it; any other exception is a
/// finding and leaves, and so is taking more memory than MemoryLimit (memory.h).
void RunTarget(const Target& target, std::span<const uint8_t> input);

}  // namespace lab::fuzz
