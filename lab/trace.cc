#include "lab/trace.h"

#include <algorithm>
#include <cmath>

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
  ParallelEach(view.tokens, static_cast<size_t>(threads_), record);
}

template class TraceRecorder<float>;
template class TraceRecorder<double>;

template <class T>
TopRecord ComputeTop(const T* logits, size_t vocab, size_t token, size_t k) {
  TopRecord top;
  top.token = token;
  k = std::min(k, vocab);
  if (k == 0) return top;
  // NaN ranks last, so that the order stays a strict one; of equal logits the lower id comes first.
  const auto higher = [&](int32_t a, int32_t b) {
    const bool a_nan = std::isnan(logits[a]), b_nan = std::isnan(logits[b]);
    if (a_nan != b_nan) return b_nan;
    return logits[a] != logits[b] && !a_nan ? logits[a] > logits[b] : a < b;
  };
  std::vector<int32_t>& ids = top.ids;  // a heap of the highest so far, the lowest of them in front
  ids.reserve(k);
  for (int32_t id = 0; id < static_cast<int32_t>(vocab); ++id) {
    if (ids.size() == k) {
      if (!higher(id, ids.front())) continue;
      std::pop_heap(ids.begin(), ids.end(), higher);
      ids.pop_back();
    }
    ids.push_back(id);
    std::push_heap(ids.begin(), ids.end(), higher);
  }
  std::sort_heap(ids.begin(), ids.end(), higher);
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
