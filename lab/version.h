#pragma once
#include <string>

namespace lab {

std::string Version();   ///< "0.1.0"
std::string Commit();    ///< git commit of this build, "+" behind it when the tree had changes
std::string Compiler();  ///< "g++ 12.2.0"
std::string HighwayVersion();
std::string HighwayTarget();  ///< the SIMD target that Highway rows use now: "AVX2", "AVX3", ...

}  // namespace lab
