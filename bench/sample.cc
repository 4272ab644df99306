#include "bench/sample.h"

#include <algorithm>
#include <cstring>

namespace lab {
namespace {

constexpr size_t kTokens = 8, kRows = 64;

// At most `most` of n, the first and the last among them.
std::vector<size_t> Spread(size_t n, size_t most) {
  const size_t count = std::min(n, most);
  std::vector<size_t> picked;
  for (size_t i = 0; i < count; ++i)
    picked.push_back(count == 1 ? n - 1 : i * (n - 1) / (count - 1));
  return picked;
}

void TakeRows(Case& part, WeightView& slot, const WeightView& w, const std::vector<size_t>& rows) {
  auto bytes = std::make_shared<std::vector<uint8_t>>();
  for (const size_t r : rows) bytes->insert(bytes->end(), w.row(r), w.row(r) + w.row_bytes());
  slot = {w.type, bytes->data(), rows.size(), w.cols};
  part.owned.push_back(std::move(bytes));
}

std::vector<float> Slice(const std::vector<float>& values, size_t begin, size_t n) {
  if (values.empty()) return {};
  return {values.begin() + static_cast<ptrdiff_t>(begin),
          values.begin() + static_cast<ptrdiff_t>(begin + n)};
}

// One token of a case, and those rows of its matrices. Tokens share nothing but the keys and values
// before them.
Case PartOf(const Case& c, size_t token, const std::vector<size_t>& rows) {
  Case part;
  part.op = c.op;
  part.tokens = std::min<size_t>(c.tokens, 1);
  part.x = Slice(c.x, token * c.n(), c.n());
  part.x2 = Slice(c.x2, token * c.n(), c.n());
  part.heads = c.heads;
  part.kv_heads = c.kv_heads;
  part.head_dim = c.head_dim;
  part.first_position = c.first_position + token;
  part.rope_base = c.rope_base;
  part.eps = c.eps;
  part.exact = c.exact;
  const size_t seen = (part.first_position + 1) * c.kv_heads * c.head_dim;
  part.k = Slice(c.k, 0, seen);
  part.v = Slice(c.v, 0, seen);
  if (c.op == Op::embed) {
    TakeRows(part, part.w, c.w, {static_cast<size_t>(c.ids[token])});
    part.ids = {0};
    return part;
  }
  if (c.w.data) TakeRows(part, part.w, c.w, rows);
  if (c.w_up.data) TakeRows(part, part.w_up, c.w_up, rows);
  if (c.op == Op::rms_norm) part.vector = c.vector;
  if (c.w.data && !c.vector.empty())
    for (const size_t r : rows) part.vector.push_back(c.vector[r]);
  return part;
}

void Merge(Verdict& all, const Verdict& v) {
  const uint64_t compared = all.compared + v.compared;
  const bool worse = all.compared == 0 || all.status != Status::fail;
  if (worse && (v.status == Status::fail || v.worst >= all.worst)) all = v;
  all.compared = compared;
}

}  // namespace

Samples::Samples(const Case& c, Contract contract, bool half_kv)
    : op_(c.op), rows_(Spread(c.w.data ? c.w.rows : 0, kRows)) {
  for (const size_t token : Spread(std::max<size_t>(c.tokens, 1), kTokens))
    samples_.push_back({token, ExpectedOf(PartOf(c, token, rows_), contract, half_kv)});
}

GuardedBuffer<float> Samples::Gather(const GuardedBuffer<float>& output, size_t token) const {
  const bool dequant = op_ == Op::q4k_dequant || op_ == Op::q6k_dequant;
  const bool dots =
      op_ == Op::matvec || op_ == Op::down_proj || op_ == Op::gate_up || op_ == Op::gate_up_swiglu;
  GuardedBuffer<float> part(output.name(), dequant ? rows_.size() : 1,
                            dots ? rows_.size() : output.n());
  const float* from = output.data() + token * output.n();
  if (dots) {
    for (size_t i = 0; i < rows_.size(); ++i) part.data()[i] = from[rows_[i]];
  } else if (dequant) {
    for (size_t i = 0; i < rows_.size(); ++i)
      std::copy_n(output.data() + rows_[i] * output.n(), output.n(), part.data() + i * output.n());
  } else {
    std::copy_n(from, output.n(), part.data());
  }
  return part;
}

Verdict Samples::Judge(const std::deque<GuardedBuffer<float>>& outputs, bool guards_intact,
                       size_t lanes) const {
  Verdict all;
  for (const Sample& s : samples_) {
    std::deque<GuardedBuffer<float>> part;
    for (const GuardedBuffer<float>& output : outputs) part.push_back(Gather(output, s.token));
    Verdict v = JudgeOutputs(s.expected, part, guards_intact, lanes);
    v.token = s.token;
    Merge(all, v);
  }
  return all;
}

}  // namespace lab
