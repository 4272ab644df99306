#include "lab/reduce.h"

#include <algorithm>

namespace lab {
namespace {

void Cut(std::vector<float>& values, size_t begin, size_t end) {
  values.resize(end);
  values.erase(values.begin(), values.begin() + static_cast<ptrdiff_t>(begin));
}

Case OneToken(Case c, size_t token) {
  const size_t n = c.n(), seen = (c.first_position + token + 1) * c.kv_heads * c.head_dim;
  for (std::vector<float>* values : {&c.x, &c.x2})
    if (!values->empty()) Cut(*values, token * n, (token + 1) * n);
  for (std::vector<float>* values : {&c.k, &c.v})
    if (!values->empty()) values->resize(seen);
  // Not a list of one: g++ 14 warns of it.
  if (!c.ids.empty()) {
    const int32_t id = c.ids[token];
    c.ids.assign(1, id);
  }
  c.first_position += token;
  c.tokens = 1;
  return c;
}

// `n` neighbouring rows of the weights (and of the bias) with `row` among them.
Case FewRows(Case c, size_t row, size_t n) {
  const size_t begin = std::min(row / n * n, c.w.rows - n);
  const bool has_bias = !c.vector.empty();
  for (WeightView* w : {&c.w, &c.w_up})
    if (w->data) *w = w->Rows(begin, begin + n);
  if (has_bias) Cut(c.vector, begin, begin + n);
  return c;
}

bool HasRows(const Case& c) {
  return c.op == Op::matvec || c.op == Op::down_proj || c.op == Op::gate_up ||
         c.op == Op::gate_up_swiglu;
}

}  // namespace

size_t DataBytes(const Case& c) {
  const size_t floats = c.x.size() + c.x2.size() + c.k.size() + c.v.size() + c.vector.size();
  return floats * sizeof(float) + (c.w.data ? c.w.bytes() : 0) + (c.w_up.data ? c.w_up.bytes() : 0);
}

Case Reduce(const Case& c, size_t token, size_t channel,
            const std::function<bool(const Case&)>& fails) {
  std::vector<Case> parts = {c};
  if (HasRows(c))
    for (const size_t n : {size_t{1}, size_t{8}, size_t{64}})
      if (n < c.w.rows) parts.push_back(FewRows(c, channel, n));
  if (c.tokens > 1)
    for (size_t i = parts.size(); i-- > 0;) parts.push_back(OneToken(parts[i], token));
  std::stable_sort(parts.begin(), parts.end(),
                   [](const Case& a, const Case& b) { return DataBytes(a) < DataBytes(b); });
  return *std::find_if(parts.begin(), parts.end() - 1, fails);
}

}  // namespace lab
