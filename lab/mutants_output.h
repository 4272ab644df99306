#pragma once
// Mutants of any op: what a kernel can do to its outputs. Included by lab/mutants.cc alone.
#include <atomic>
#include <cmath>

#include "lab/mutants_weight.h"

namespace lab {

/// An output of an op: n values for each token.
template <class T>
struct OutputSpan {
  T* data;
  size_t tokens, n, stride;
};

template <class T>
std::vector<OutputSpan<T>> SpansOf(const DequantArgs<T>& a) {
  return {{a.y, a.w.rows, a.w.cols, a.w.cols}};
}
template <class T>
std::vector<OutputSpan<T>> SpansOf(const EmbedArgs<T>& a) {
  return {{a.y, a.tokens, a.table.cols, a.table.cols}};
}
template <class T>
std::vector<OutputSpan<T>> SpansOf(const RmsNormArgs<T>& a) {
  return {{a.y, a.tokens, a.n, a.n}};
}
template <class T>
std::vector<OutputSpan<float>> SpansOf(const QuantizeArgs<T>& a) {
  return {{a.scale, a.tokens, a.n / a.block, a.n / a.block}};
}
template <class T>
std::vector<OutputSpan<T>> SpansOf(const MatvecArgs<T>& a) {
  return {{a.y, a.tokens, a.w.rows, a.y_stride}};
}
template <class T>
std::vector<OutputSpan<T>> SpansOf(const GateUpArgs<T>& a) {
  return {{a.gate, a.tokens, a.w_gate.rows, a.y_stride}, {a.up, a.tokens, a.w_up.rows, a.y_stride}};
}
template <class T>
std::vector<OutputSpan<T>> SpansOf(const GateUpSwigluArgs<T>& a) {
  return {{a.y, a.gate_up.tokens, a.Items(), a.gate_up.y_stride}};
}
template <class T>
std::vector<OutputSpan<T>> SpansOf(const RopeArgs<T>& a) {
  return {{a.y, a.tokens, a.heads * a.head_dim, a.stride}};
}
template <class T>
std::vector<OutputSpan<T>> SpansOf(const GqaAttentionArgs<T>& a) {
  return {{a.y, a.tokens, a.heads * a.head_dim, a.y_stride}};
}
template <class T>
std::vector<OutputSpan<T>> SpansOf(const ResidualAddArgs<T>& a) {
  return {{a.y, 1, a.n, a.n}};
}
template <class T>
std::vector<OutputSpan<T>> SpansOf(const SiluArgs<T>& a) {
  return {{a.y, 1, a.n, a.n}};
}
template <class T>
std::vector<OutputSpan<T>> SpansOf(const SwigluArgs<T>& a) {
  return {{a.y, 1, a.n, a.n}};
}

struct NotWritten {
  template <class A>
  requires requires(const A& a) { SpansOf(a); }
  bool operator()(const A&, const Inner&) const { return true; }
};
struct TailSkipped {
  template <class A>
  requires requires(const A& a) { SpansOf(a); }
  bool operator()(const A& args, const Inner& inner) const {
    if (args.Items() < 2) return false;
    inner(args.Slice(0, args.Items() - 1));
    return true;
  }
};
struct TailZero {
  template <class A>
  requires requires(const A& a) { SpansOf(a); }
  bool operator()(const A& args, const Inner& inner) const {
    inner(args);
    for (const auto& span : SpansOf(args.Slice(args.Items() - 1, args.Items())))
      for (size_t t = 0; t < span.tokens; ++t) std::fill_n(span.data + t * span.stride, span.n, 0);
    return true;
  }
};

/// The middle element of the first output.
template <class A>
auto& MiddleElement(const A& args) {
  const auto span = SpansOf(args)[0];
  return span.data[span.tokens / 2 * span.stride + span.n / 2];
}

struct NanElement {
  template <class A>
  requires requires(const A& a) { SpansOf(a); }
  bool operator()(const A& args, const Inner& inner) const {
    inner(args);
    MiddleElement(args) = NAN;
    return true;
  }
};
struct Nondeterministic {
  template <class A>
  requires requires(const A& a) { SpansOf(a); }
  bool operator()(const A& args, const Inner& inner) const {
    static std::atomic<unsigned> runs = 0;
    inner(args);
    auto& y = MiddleElement(args);
    if (runs.fetch_add(1) % 2 == 1)
      y = std::nextafter(y, std::numeric_limits<std::remove_reference_t<decltype(y)>>::max());
    return true;
  }
};
struct WritesPastEnd {
  template <class A>
  requires requires(const A& a) { SpansOf(a); }
  bool operator()(const A& args, const Inner& inner) const {
    inner(args);
    const auto span = SpansOf(args).back();
    span.data[(span.tokens - 1) * span.stride + span.n] = 1;
    return true;
  }
};

}  // namespace lab
