#include "lab/trace.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lab/parallel.h"
#include "lab/row_sums.h"

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
  const size_t first = trace_.taps.size(), first_top = trace_.tops.size();
  const bool logits = view.tap == Tap::lm_head;
  trace_.taps.resize(first + view.tokens);
  if (logits) trace_.tops.resize(first_top + view.tokens);
  const auto record = [&](size_t t) {
    const T* row = view.values ? view.values + t * view.stride : nullptr;
    const size_t token = view.first_token + t;
    const Stats stats = view.sums.empty() ? ComputeStats(row, view.n) : StatsOf(view.SumsOf(t));
    trace_.taps[first + t] = {view.tap, view.layer, token, stats};
    if (sketches_)
      trace_.taps[first + t].sketch = std::make_shared<Sketch>(MakeSketch(row, view.n));
    if (logits) trace_.tops[first_top + t] = ComputeTop(row, view.n, token, top_k_);
  };
  const size_t threads = std::min(static_cast<size_t>(threads_), view.tokens);
  ParallelFor(static_cast<int>(threads), [&](int i) {
    for (size_t t = static_cast<size_t>(i); t < view.tokens; t += threads) record(t);
  });
}

template class TraceRecorder<float>;
template class TraceRecorder<double>;

template <class T>
TopRecord ComputeTop(const T* logits, size_t vocab, size_t token, size_t k) {
  TopRecord top;
  top.token = token;
  k = std::min(k, vocab);
  if (k == 0) return top;
  std::vector<int32_t> order(vocab);  // not in the record, which would keep its memory
  std::iota(order.begin(), order.end(), 0);
  // NaN ranks last, so that the order stays a strict one; of equal logits the lower id comes first.
  const auto higher = [&](int32_t a, int32_t b) {
    const bool a_nan = std::isnan(logits[a]), b_nan = std::isnan(logits[b]);
    if (a_nan != b_nan) return b_nan;
    return logits[a] != logits[b] && !a_nan ? logits[a] > logits[b] : a < b;
  };
  const auto end = order.begin() + static_cast<ptrdiff_t>(k);
  std::partial_sort(order.begin(), end, order.end(), higher);
  top.ids.assign(order.begin(), end);
  const double largest = logits[top.ids[0]];
  const double sum = SumExp(logits, vocab, largest);
  for (const int32_t id : top.ids) {
    top.logits.push_back(static_cast<double>(logits[id]));
    top.p.push_back(std::exp(static_cast<double>(logits[id]) - largest) / sum);
  }
  return top;
}

template TopRecord ComputeTop(const float*, size_t, size_t, size_t);
template TopRecord ComputeTop(const double*, size_t, size_t, size_t);

}  // namespace lab
