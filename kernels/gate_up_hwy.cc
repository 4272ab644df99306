#include <algorithm>

#include "kernels/gate_up.h"
#include "kernels/matvec.h"
#include "kernels/scratch-inl.h"
#include "kernels/targets-inl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gate_up_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
#include "kernels/dequant-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

// Row r of both matrices, Q4_K, goes over x together, block by block.
void GateUpOneToken(const GateUpArgs<float>& a) {
  for (size_t r = 0; r < a.w_gate.rows; ++r) {
    const uint8_t* const rows[2] = {a.w_gate.row(r), a.w_up.row(r)};
    float sums[2];
    FusedDot<BlockQ4_K>(rows, a.x, a.w_gate.cols, sums);
    a.gate[r] = sums[0];
    a.up[r] = sums[1];
  }
}

// Half of the group of unpacked rows are of w_gate, half of w_up.
void GateUpTokens(const GateUpArgs<float>& a, float* unpacked) {
  const size_t n = a.w_gate.cols;
  for (size_t r0 = 0; r0 < a.w_gate.rows; r0 += kRowGroup / 2) {
    const size_t rows = std::min(kRowGroup / 2, a.w_gate.rows - r0);
    for (size_t r = 0; r < rows; ++r) {
      DequantRow(a.w_gate.type, a.w_gate.row(r0 + r), n, unpacked + r * n);
      DequantRow(a.w_up.type, a.w_up.row(r0 + r), n, unpacked + (rows + r) * n);
    }
    DotAll(unpacked, n, 2 * rows, a.x, n, a.tokens, n,
           [&](size_t r, size_t t, float sum) LAB_LAMBDA {
             float* y = r < rows ? a.gate + r0 + r : a.up + r0 + r - rows;
             y[t * a.y_stride] = sum;
           });
  }
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(GateUpOneToken);
HWY_EXPORT(GateUpTokens);

void MatvecHwy(const MatvecArgs<float>& a);

void GateUpHwy(const GateUpArgs<float>& a) {
  if (a.tokens > 1)
    return HWY_DYNAMIC_DISPATCH(GateUpTokens)(a, Scratch(kRowGroup * a.w_gate.cols));
  if (IsQ4kPair(a)) return HWY_DYNAMIC_DISPATCH(GateUpOneToken)(a);
  MatvecHwy({a.w_gate, nullptr, a.x, {}, a.gate, nullptr, 1, a.y_stride});
  MatvecHwy({a.w_up, nullptr, a.x, {}, a.up, nullptr, 1, a.y_stride});
}

}  // namespace lab
#endif
