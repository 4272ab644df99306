// Op gate_up under contracts q8 and q16: rows of both matrices in turn, in a prefill over so few of
// them at a time that the activations stay in the second-level cache.
#include <algorithm>

#include "kernels/gate_up.h"
#include "kernels/matvec.h"
#include "kernels/scratch-inl.h"

namespace lab {

void MatvecRows8Q8Hwy(const MatvecArgs<float>& a);
void MatvecRows8Q16Hwy(const MatvecArgs<float>& a);

namespace {

void GateUp(const GateUpArgs<float>& a, void (*matvec)(const MatvecArgs<float>&)) {
  static_assert(ChunkRows(2, 0) % kRowsSliceGrain == 0, "else slices lose their repacked form");
  const size_t step = ChunkRows(a.tokens, a.Items());
  for (size_t r0 = 0; r0 < a.Items(); r0 += step) {
    const GateUpArgs<float> s = a.Slice(r0, std::min(r0 + step, a.Items()));
    matvec({s.w_gate, nullptr, s.x, s.xq_gate, s.gate, nullptr, s.tokens, s.y_stride});
    matvec({s.w_up, nullptr, s.x, s.xq_up, s.up, nullptr, s.tokens, s.y_stride});
  }
}

}  // namespace

void GateUpQ8Hwy(const GateUpArgs<float>& a) {
  GateUp(a, MatvecRows8Q8Hwy);
}
void GateUpQ16Hwy(const GateUpArgs<float>& a) {
  GateUp(a, MatvecRows8Q16Hwy);
}

}  // namespace lab
