#include <vector>

#include "kernels/gate_up_swiglu.h"
#include "kernels/silu.h"
#include "kernels/swiglu.h"

namespace lab {

void GateUpOracle(const GateUpArgs<double>& a);
void GateUpRef(const GateUpArgs<float>& a);
void SiluOracle(const SiluArgs<double>& a);
void SiluRef(const SiluArgs<float>& a);
void SwigluOracle(const SwigluArgs<double>& a);
void SwigluRef(const SwigluArgs<float>& a);

namespace {

template <class T, auto GateUp, auto Silu, auto Swiglu>
void GateUpSwiglu(GateUpSwigluArgs<T> a) {
  const size_t rows = a.Items(), stride = a.gate_up.y_stride;
  std::vector<T> scratch(a.silu ? 0 : 3 * a.gate_up.tokens * stride);
  if (!a.silu) {
    a.gate_up.gate = scratch.data();
    a.gate_up.up = a.gate_up.gate + a.gate_up.tokens * stride;
    a.silu = a.gate_up.up + a.gate_up.tokens * stride;
  }
  GateUp(a.gate_up);
  for (size_t t = 0; t < a.gate_up.tokens; ++t) {
    const size_t at = t * stride;
    Silu({a.gate_up.gate + at, a.silu + at, rows});
    Swiglu({a.silu + at, a.gate_up.up + at, a.y + at, rows});
  }
}

}  // namespace

void GateUpSwigluOracle(const GateUpSwigluArgs<double>& a) {
  GateUpSwiglu<double, GateUpOracle, SiluOracle, SwigluOracle>(a);
}
void GateUpSwigluRef(const GateUpSwigluArgs<float>& a) {
  GateUpSwiglu<float, GateUpRef, SiluRef, SwigluRef>(a);
}

}  // namespace lab
