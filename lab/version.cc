#include "lab/version.h"

#include <fmt/format.h>

#include "lab/simd_target.h"
#include "version_commit.h"

namespace lab {

std::string Version() {
  return LAB_VERSION;
}
std::string Commit() {
  return LAB_COMMIT;
}

std::string Compiler() {
#ifdef __clang__
  return fmt::format("clang++ {}.{}.{}", __clang_major__, __clang_minor__, __clang_patchlevel__);
#else
  return fmt::format("g++ {}.{}.{}", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
}

std::string HighwayVersion() {
  return LAB_HIGHWAY_VERSION;
}

std::string HighwayTarget() {
  return CurrentSimdTarget().name;
}

}  // namespace lab
