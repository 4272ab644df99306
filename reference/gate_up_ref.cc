#include "kernels/gate_up.h"
#include "reference/matvec_ref.h"

namespace lab {
namespace {

template <class T>
void GateUp(const GateUpArgs<T>& a) {
  MatvecRows(a.w_gate, a.x, a.xq_gate, a.tokens, a.gate, a.y_stride);
  MatvecRows(a.w_up, a.x, a.xq_up, a.tokens, a.up, a.y_stride);
}

}  // namespace

void GateUpOracle(const GateUpArgs<double>& a) {
  GateUp(a);
}
void GateUpRef(const GateUpArgs<float>& a) {
  GateUp(a);
}

}  // namespace lab
