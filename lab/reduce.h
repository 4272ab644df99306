#pragma once
#include <functional>

#include "lab/case.h"

namespace lab {

/// Bytes of the tensors that a case file holds for it.
size_t DataBytes(const Case& c);

/// The smallest part of a case that still fails: few rows of its weights around `channel`, `token`
/// alone or all tokens; the case itself if no smaller one does. Attention keeps all keys that the
/// token sees.
Case Reduce(const Case& c, size_t token, size_t channel,
            const std::function<bool(const Case&)>& fails);

}  // namespace lab
