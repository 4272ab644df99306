#pragma once
#include "kernels/gate_up.h"

namespace lab {

/// Op gate_up_swiglu, the first half of the FFN in one go, while what it makes is in the cache:
///   gate, up as op gate_up, silu[t, r] = gate / (1 + exp(-gate)), y[t, r] = silu[t, r] up[t, r]
/// On one backend its bits are those of gate_up, silu and swiglu one after the other.
template <class T>
struct GateUpSwigluArgs {
  GateUpArgs<T> gate_up;  ///< its gate and up may be null, see silu
  T* silu;                ///< like y; gate, up and silu are wanted all three, or all are null
  T* y;  ///< [tokens, rows], gate_up.y_stride values from token to token; overlaps nothing

  static constexpr size_t kSliceGrain = kRowsSliceGrain;
  size_t Items() const { return gate_up.Items(); }
  size_t Work() const { return gate_up.Work(); }
  size_t Bytes() const {
    const size_t kept = gate_up.tokens * Items() * sizeof(T);
    return silu ? gate_up.Bytes() + 2 * kept : gate_up.Bytes() - kept;
  }
  GateUpSwigluArgs Slice(size_t begin, size_t end) const {
    GateUpSwigluArgs s = {gate_up.Slice(begin, end), silu, y + begin};
    if (silu)
      s.silu += begin;
    else
      s.gate_up.gate = s.gate_up.up = nullptr;
    return s;
  }
};

}  // namespace lab
