// Op gate_up under contracts q8 and q16.
#include "kernels/gate_up.h"
#include "kernels/matvec.h"
#include "kernels/scratch-inl.h"
#include "kernels/targets-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gate_up_int_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
#include "kernels/int_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

// Row r of both matrices, Q4_K, goes over the activations together, block by block.
template <size_t kPlanes>
HWY_INLINE void GateUp(const GateUpArgs<float>& a, float* sums) {
  const auto x = Prepare<kPlanes>(a.w_gate.type, a.xq_gate, a.tokens, sums);
  for (size_t r = 0; r < a.w_gate.rows; ++r) {
    const uint8_t* const rows[2] = {a.w_gate.row(r), a.w_up.row(r)};
    RowsAllTokens<BlockQ4_K>(rows, x, a.w_gate.cols, a.tokens,
                             [&](size_t matrix, size_t t, float sum) LAB_LAMBDA {
                               (matrix == 0 ? a.gate : a.up)[t * a.y_stride + r] = sum;
                             });
  }
}

void GateUpQ8(const GateUpArgs<float>& a, float* sums) {
  GateUp<1>(a, sums);
}
void GateUpQ16(const GateUpArgs<float>& a, float* sums) {
  GateUp<2>(a, sums);
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(GateUpQ8);
HWY_EXPORT(GateUpQ16);
void MatvecQ8Hwy(const MatvecArgs<float>& a);
void MatvecQ16Hwy(const MatvecArgs<float>& a);

namespace {

MatvecArgs<float> OneMatrix(const GateUpArgs<float>& a, const WeightView& w,
                            const QuantizedView& xq, float* y) {
  return {w, nullptr, a.x, xq, y, nullptr, a.tokens, a.y_stride};
}

}  // namespace

void GateUpQ8Hwy(const GateUpArgs<float>& a) {
  if (IsQ4kPair(a))
    return HWY_DYNAMIC_DISPATCH(GateUpQ8)(a, Scratch(a.tokens * a.w_gate.cols / 32));
  MatvecQ8Hwy(OneMatrix(a, a.w_gate, a.xq_gate, a.gate));
  MatvecQ8Hwy(OneMatrix(a, a.w_up, a.xq_up, a.up));
}
void GateUpQ16Hwy(const GateUpArgs<float>& a) {
  if (IsQ4kPair(a))
    return HWY_DYNAMIC_DISPATCH(GateUpQ16)(a, Scratch(a.tokens * a.w_gate.cols / 32));
  MatvecQ16Hwy(OneMatrix(a, a.w_gate, a.xq_gate, a.gate));
  MatvecQ16Hwy(OneMatrix(a, a.w_up, a.xq_up, a.up));
}
}  // namespace lab
#endif
