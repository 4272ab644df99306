// The fuzzer: libFuzzer's flags, and the target's name in $LAB_FUZZ_TARGET; without one, a list of
// them.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/targets.h"

namespace {

const lab::fuzz::Target* target = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* name = std::getenv("LAB_FUZZ_TARGET");
  const auto targets = lab::fuzz::Targets();
  const auto it = std::find_if(targets.begin(), targets.end(),
                               [&](const auto& t) { return name && t.name == name; });
  if (it != targets.end()) {
    target = &*it;
    return 0;
  }
  for (const auto& t : targets)
    std::printf("%.*s\n", static_cast<int>(t.name.size()), t.name.data());
  std::exit(name && *name ? 2 : 0);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  lab::fuzz::RunTarget(*target, {data, size});
  return 0;
}
