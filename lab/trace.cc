#include "lab/trace.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace lab {

const TapRecord* Trace::FirstNonFinite() const {
  for (const TapRecord& r : taps)
    if (!r.stats.finite()) return &r;
  return nullptr;
}

std::map<std::pair<int, Tap>, TapGroup> GroupTaps(const Trace& trace) {
  std::map<std::pair<int, Tap>, TapGroup> groups;
  for (const TapRecord& r : trace.taps) groups[{r.layer, r.tap}].push_back(&r);
  return groups;
}

Stats PoolGroup(const TapGroup& group) {
  std::vector<const Stats*> rows;
  for (const TapRecord* r : group) rows.push_back(&r->stats);
  return Pool(rows);
}

template <class T>
void TraceRecorder<T>::OnTap(const TapView<T>& view) {
  for (size_t t = 0; t < view.tokens; ++t) {
    const T* row = view.values + t * view.stride;
    trace_.taps.push_back({view.tap, view.layer, view.first_token + t, ComputeStats(row, view.n)});
    if (sketches_) trace_.taps.back().sketch = MakeSketch(row, view.n);
    if (view.tap == Tap::lm_head)
      trace_.tops.push_back(ComputeTop(row, view.n, view.first_token + t, top_k_));
  }
}

template class TraceRecorder<float>;
template class TraceRecorder<double>;

template <class T>
TopRecord ComputeTop(const T* logits, size_t vocab, size_t token, size_t k) {
  TopRecord top;
  top.token = token;
  top.ids.resize(vocab);
  std::iota(top.ids.begin(), top.ids.end(), 0);
  k = std::min(k, vocab);
  // NaN ranks last, so that the order stays a strict one; of equal logits the lower id comes first.
  const auto higher = [&](int32_t a, int32_t b) {
    const bool a_nan = std::isnan(logits[a]), b_nan = std::isnan(logits[b]);
    if (a_nan != b_nan) return b_nan;
    return logits[a] != logits[b] && !a_nan ? logits[a] > logits[b] : a < b;
  };
  std::partial_sort(top.ids.begin(), top.ids.begin() + static_cast<ptrdiff_t>(k), top.ids.end(),
                    higher);
  top.ids.resize(k);
  if (k == 0) return top;
  const double largest = logits[top.ids[0]];
  double sum = 0;
  for (size_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(logits[i]) - largest);
  for (const int32_t id : top.ids) {
    top.logits.push_back(static_cast<double>(logits[id]));
    top.p.push_back(std::exp(static_cast<double>(logits[id]) - largest) / sum);
  }
  return top;
}

template TopRecord ComputeTop(const float*, size_t, size_t, size_t);
template TopRecord ComputeTop(const double*, size_t, size_t, size_t);

}  // namespace lab
