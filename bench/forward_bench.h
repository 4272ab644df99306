#pragma once
#include <string>

#include "bench/roofline.h"
#include "model/forward.h"

namespace lab {

struct ForwardBench {
  Backend backend = Backend::hwy;
  Contract contract = Contract::f32;
  size_t prefill = 512, decode = 64;
  std::vector<size_t> depths = {0, 1024, 4096};
};

/// Times whole passes: prefill (median of 3) and decode at each depth (median of its tokens).
Table TimeForward(const Qwen2& model, const ForwardBench& f, const Roofline& roofline);

}  // namespace lab
