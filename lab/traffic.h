#pragma once
// What a row streams from memory and computes, from its arguments.
#include "lab/registry.h"

namespace lab {

/// Calls f(pointer, bytes) on the weights in every form they are there in.
template <class F>
void ForEachForm(WeightView& w, F&& f) {
  f(w.data, w.bytes());
  if (w.rows8) f(w.rows8, w.rows / 8 * 8 * w.row_bytes());
}
/// Calls f(pointer, bytes) on every pointer of args to what a model streams from memory: weights
/// and the KV cache.
template <class Args, class F>
void ForEachStream(Args& args, F&& f) {
  if constexpr (requires { args.gate_up; }) {
    ForEachStream(args.gate_up, f);
  } else if constexpr (requires { args.w_gate; }) {
    ForEachForm(args.w_gate, f);
    ForEachForm(args.w_up, f);
  } else if constexpr (requires { args.w; }) {
    ForEachForm(args.w, f);
  } else if constexpr (requires { args.k16; }) {
    if (args.k16) f(args.k16, 2 * args.KeyExtent());
    if (args.v16) f(args.v16, 2 * args.ValueExtent());
    if (args.k) f(args.k, 4 * args.KeyExtent());
    if (args.v) f(args.v, 4 * args.ValueExtent());
  }
}

/// Operations: a multiply-add counts as two, the exponential of SiLU as one.
template <class Args>
double OpsOf(const Args& a) {
  return 2.0 * static_cast<double>(a.Work());
}
template <class T>
double OpsOf(const GqaAttentionArgs<T>& a) {
  const double t = static_cast<double>(a.tokens);
  // A token sees itself and what is before it: not the whole square.
  const double pairs = t * static_cast<double>(a.first_position) + t * (t + 1) / 2;
  return 4 * pairs * static_cast<double>(a.head_dim * a.heads);
}
template <class T>
double OpsOf(const QuantizeArgs<T>& a) {
  return 4.0 * static_cast<double>(a.tokens * a.n);
}
template <class T>
double OpsOf(const RopeArgs<T>& a) {
  return 3.0 * static_cast<double>(a.tokens * a.heads * a.head_dim);
}
template <class T>
double OpsOf(const ResidualAddArgs<T>& a) {
  return static_cast<double>(a.n);
}
template <class T>
double OpsOf(const SiluArgs<T>& a) {
  return 4.0 * static_cast<double>(a.n);
}
template <class T>
double OpsOf(const SwigluArgs<T>& a) {
  return static_cast<double>(a.n);
}

}  // namespace lab
