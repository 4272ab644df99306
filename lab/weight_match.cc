#include "lab/weight_match.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "lab/parallel.h"

namespace lab {
namespace {

constexpr std::string_view kOutput = "output.weight", kEmbedding = "token_embd.weight";

// A finding explains a difference when it leaves at most so much of its rms. The rounding of Q4_K
// is 0.05 of what two unrelated tensors differ by.
constexpr double kExplains = 0.1;

const WeightTensor* FindOrTied(const WeightFile& file, const std::string& name) {
  const WeightTensor* t = file.FindTensor(name);
  return !t && name == kOutput ? file.FindTensor(kEmbedding) : t;
}

TensorMatch MatchOf(const std::string& name, const WeightTensor* a, const WeightTensor* b) {
  TensorMatch m;
  m.name = name, m.a = a, m.b = b;
  return m;
}

std::vector<TensorMatch> Match(const WeightFile& a, const WeightFile& b) {
  std::vector<TensorMatch> all;
  for (const WeightTensor& t : a.tensors()) {
    all.push_back(MatchOf(t.name, &t, FindOrTied(b, t.name)));
    if (!all.back().b) all.back().finding = Finding::only_in_a;
  }
  for (const WeightTensor& t : b.tensors()) {
    if (a.FindTensor(t.name)) continue;
    all.push_back(MatchOf(t.name, FindOrTied(a, t.name), &t));
    if (!all.back().a) all.back().finding = Finding::only_in_b;
  }
  return all;
}

bool HaveDimsExchanged(const WeightTensor& a, const WeightTensor& b) {
  return a.dims[2] == 1 && a.dims[3] == 1 && b.dims[2] == 1 && b.dims[3] == 1 &&
         a.dims[0] == b.dims[1] && a.dims[1] == b.dims[0];
}

// --- the bytes ---

void LookAtBytes(std::vector<TensorMatch>& all, int threads) {
  std::vector<TensorMatch*> matches;
  std::vector<ComparePair> pairs;
  for (TensorMatch& m : all) {
    if (!m.a || !m.b) continue;
    if (m.a->dims != m.b->dims)
      m.finding = HaveDimsExchanged(*m.a, *m.b) ? Finding::dims : Finding::shape;
    if (!m.a->data || !m.b->data || m.a->type != m.b->type || m.a->bytes != m.b->bytes) continue;
    matches.push_back(&m);
    pairs.push_back({m.a, m.b});
  }
  const std::vector<ByteDifference> found = CompareBytes(pairs, threads);
  for (size_t i = 0; i < matches.size(); ++i) {
    matches[i]->bytes = found[i];
    matches[i]->identical = found[i].differing == 0 && matches[i]->finding == Finding::none;
  }
}

// --- the values ---

bool IsDecodable(const WeightTensor& t) {
  return t.data && t.packing != Packing::foreign;
}

// Pairs whose values can be compared one by one, and are not known to be equal.
std::vector<TensorMatch*> Differing(std::vector<TensorMatch>& all) {
  std::vector<TensorMatch*> differing;
  for (TensorMatch& m : all) {
    if (!m.a || !m.b || m.identical || m.a->elements() != m.b->elements()) continue;
    if (IsDecodable(*m.a) && IsDecodable(*m.b))
      differing.push_back(&m);
    else if (m.finding == Finding::none)
      m.finding = Finding::undecodable;
  }
  return differing;
}

void LookAtValues(const std::vector<TensorMatch*>& differing, int threads) {
  constexpr uint64_t kFewBytes = 16;
  std::vector<ComparePair> pairs;
  for (const TensorMatch* m : differing) pairs.push_back({m->a, m->b});
  const std::vector<ValueDifference> found = CompareValues(pairs, threads);
  for (size_t i = 0; i < differing.size(); ++i) {
    TensorMatch& m = *differing[i];
    m.values = found[i];
    if (m.finding == Finding::none && m.bytes && m.bytes->differing <= kFewBytes)
      m.finding = Finding::few_bytes;
  }
}

// --- explanations ---

struct Samples {
  std::vector<float> a, b, b_transposed;
};

double Rms(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += d * d;
  }
  return std::sqrt(sum / static_cast<double>(a.size()));
}

// Finds what explains the difference of a tensor: on samples first, then in full.
class Explainer {
 public:
  Explainer(std::vector<TensorMatch>& all, int threads)
      : all_(all), samples_(all.size()), threads_(threads) {
    ParallelFor(threads, [&](int t) {
      for (auto i = static_cast<size_t>(t); i < all.size(); i += static_cast<size_t>(threads)) {
        const TensorMatch& m = all[i];
        if (m.a && IsDecodable(*m.a)) samples_[i].a = Sample(*m.a, Order::same, 0);
        if (!m.values) continue;
        samples_[i].b = Sample(*m.b, Order::same, 0);
        samples_[i].b_transposed = Sample(*m.b, Order::transposed, m.a->dims[0]);
      }
    });
  }

  void Explain(size_t i) const {
    TensorMatch& m = all_[i];
    const Samples& s = samples_[i];
    const double own = Rms(s.a, s.b);
    const auto explains = [&](const ComparePair& pair, double left) {
      if (!(left <= kExplains * own) || own == 0) return false;
      const ValueDifference in_full = CompareValues({&pair, 1}, threads_)[0];
      if (!(in_full.Rms() <= kExplains * m.values->Rms())) return false;
      m.explained = in_full;
      return true;
    };
    const bool matrix = m.a->dims[0] > 1 && m.a->dims[1] > 1;
    if (matrix && explains({m.a, m.b, Order::transposed}, Rms(s.a, s.b_transposed))) {
      m.finding = Finding::transposed;
      return;
    }
    for (size_t k = 0; k < all_.size(); ++k) {
      const WeightTensor* other = all_[k].a;
      if (k == i || samples_[k].a.empty() || other->elements() != m.a->elements() ||
          !explains({other, m.b}, Rms(samples_[k].a, s.b)))
        continue;
      m.finding = Finding::another;
      m.other = all_[k].name;
      return;
    }
  }

 private:
  std::vector<TensorMatch>& all_;
  std::vector<Samples> samples_;
  int threads_;
};

void FindExplanations(std::vector<TensorMatch>& all, int threads) {
  const Explainer explainer(all, threads);
  for (size_t i = 0; i < all.size(); ++i)
    if (all[i].values) explainer.Explain(i);
  for (TensorMatch& m : all)
    for (const TensorMatch& other : all)
      m.exchanged |= m.finding == Finding::another && other.finding == Finding::another &&
                     other.name == m.other && other.other == m.name;
}

}  // namespace

double TensorMatch::Cosine() const {
  if (identical) return 1;
  return values ? values->Cosine() : std::numeric_limits<double>::quiet_NaN();
}

bool TensorMatch::IsWrong() const {
  switch (finding) {
    case Finding::only_in_a:
    case Finding::only_in_b:
    case Finding::shape:
    case Finding::dims:
    case Finding::transposed:
    case Finding::another:
    case Finding::few_bytes:
      return true;
    case Finding::none:
    case Finding::undecodable:
      return false;
  }
  return false;
}

std::vector<TensorMatch> MatchWeights(const WeightFile& a, const WeightFile& b, int threads) {
  std::vector<TensorMatch> all = Match(a, b);
  LookAtBytes(all, threads);
  const std::vector<TensorMatch*> differing = Differing(all);
  LookAtValues(differing, threads);
  if (!differing.empty()) FindExplanations(all, threads);
  const auto key = [](const TensorMatch& m) {
    const double cosine = m.Cosine(), rms = m.values ? m.values->Rms() : 0;
    return std::array{m.IsWrong() ? 0.0 : 1.0, std::isnan(cosine) ? -2.0 : cosine,
                      std::isnan(rms) ? 0.0 : -rms};
  };
  std::stable_sort(all.begin(), all.end(),
                   [&](const TensorMatch& x, const TensorMatch& y) { return key(x) < key(y); });
  return all;
}

}  // namespace lab
