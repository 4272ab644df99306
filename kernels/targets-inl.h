#pragma once
// Included before hwy/foreach_target.h. These rows keep partial sums in arrays of vectors, which
// vectors of unknown length (SVE, RVV) do not allow; such machines run the fixed-length target that
// they also have.
// A build that names its own (the asan preset, to compile fewer of them) must disable these too.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#endif
