// Op gate_up_swiglu from the rows of its three steps, over so few rows of the weights at a time
// that gate and up are still in a cache when they are multiplied.
#include <algorithm>
#include <vector>

#include "kernels/gate_up_swiglu.h"
#include "kernels/scratch-inl.h"
#include "kernels/silu.h"
#include "kernels/swiglu.h"

namespace lab {

void GateUpHwy(const GateUpArgs<float>& a);
void GateUpQ8Hwy(const GateUpArgs<float>& a);
void GateUpQ16Hwy(const GateUpArgs<float>& a);
void SiluHwy(const SiluArgs<float>& a);
void SwigluHwy(const SwigluArgs<float>& a);

namespace {

template <void (*GateUp)(const GateUpArgs<float>&)>
void GateUpSwiglu(const GateUpSwigluArgs<float>& a) {
  thread_local std::vector<float> scratch;
  const size_t tokens = a.gate_up.tokens, step = ChunkRows(tokens, a.Items());
  const size_t half = tokens * step;
  if (!a.silu && scratch.size() < 2 * half) scratch.resize(2 * half);
  for (size_t r0 = 0; r0 < a.Items(); r0 += step) {
    const size_t rows = std::min(step, a.Items() - r0);
    const GateUpSwigluArgs<float> chunk = a.Slice(r0, r0 + rows);
    GateUpArgs<float> gate_up = chunk.gate_up;
    if (!a.silu) {
      gate_up.gate = scratch.data();
      gate_up.up = scratch.data() + half;
      gate_up.y_stride = step;
    }
    GateUp(gate_up);
    for (size_t t = 0; t < tokens; ++t) {
      const size_t at = t * gate_up.y_stride, y_at = t * chunk.gate_up.y_stride;
      float* silu = a.silu ? chunk.silu + at : gate_up.gate + at;
      SiluHwy({gate_up.gate + at, silu, rows});
      SwigluHwy({silu, gate_up.up + at, chunk.y + y_at, rows});
    }
  }
}

}  // namespace

void GateUpSwigluHwy(const GateUpSwigluArgs<float>& a) {
  GateUpSwiglu<GateUpHwy>(a);
}
void GateUpSwigluQ8Hwy(const GateUpSwigluArgs<float>& a) {
  GateUpSwiglu<GateUpQ8Hwy>(a);
}
void GateUpSwigluQ16Hwy(const GateUpSwigluArgs<float>& a) {
  GateUpSwiglu<GateUpQ16Hwy>(a);
}

}  // namespace lab
