#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/dot.cuh"
#include "kernels/joined_steps.cuh"
#include "kernels/on_device.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

using Norm = RmsNormArgs<float>;
using Quantize = QuantizeArgs<float>;
using Matvec = MatvecArgs<float>;
using ResidualAdd = ResidualAddArgs<float>;
using Rope = RopeArgs<float>;
using KvStore = KvStoreArgs<float>;

std::vector<JoinableStep> waiting;

// The waiting steps are of these types, in this order.
template <class... Steps, size_t... i>
bool Are(std::index_sequence<i...>) {
  return waiting.size() == sizeof...(Steps) && (std::holds_alternative<Steps>(waiting[i]) && ...);
}
template <class... Steps>
bool Are() {
  return Are<Steps...>(std::index_sequence_for<Steps...>());
}
template <class Step>
const Step& Waiting(size_t i) {
  return std::get<Step>(waiting[i]);
}

// Values [tokens, n], `stride` from token to token.
struct Values {
  const float* at;
  size_t tokens, n, stride;
};
Values ValuesAt(const float* at, const Rope& a) {
  return {at, a.tokens, a.heads * a.head_dim, a.stride};
}

// None of a is one of b; side by side in the rows of one buffer they may lie.
bool AreApart(const Values& a, const Values& b) {
  const auto& [low, high] = a.at <= b.at ? std::tie(a, b) : std::tie(b, a);
  const auto gap = static_cast<size_t>(high.at - low.at);
  const bool side_by_side = a.stride == b.stride && gap >= low.n && gap + high.n <= low.stride;
  return side_by_side || gap >= Strided(low.tokens, low.stride, low.n);
}

bool IsOfOneToken(const Matvec& m) {
  return m.tokens == 1 && !IsFloatType(m.w.type);
}

// ---- whether a step shares the launch of those that wait

bool Fits(const Norm&) {
  return false;
}

bool Fits(const Quantize& q) {
  if (!Are<Norm>()) return false;
  const Norm& norm = Waiting<Norm>(0);
  return q.x == norm.y && q.n == norm.n && q.tokens == norm.tokens;
}

// Of the same activations, so none reads what another one writes.
bool Fits(const Matvec& m) {
  if (!(Are<Matvec>() || Are<Matvec, Matvec>()) || !IsOfOneToken(m)) return false;
  static_assert(kMostProjections == 3);
  return std::ranges::all_of(waiting, [&](const JoinableStep& step) {
    const Matvec& other = std::get<Matvec>(step);
    return IsOfOneToken(other) && other.x == m.x && ActsOf(other.xq) == ActsOf(m.xq) &&
           AreApart({m.y, 1, m.w.rows, 0}, {other.y, 1, other.w.rows, 0});
  });
}

bool Fits(const ResidualAdd& sum) {
  if (!Are<Matvec>()) return false;
  const Matvec& m = Waiting<Matvec>(0);
  return m.tokens == 1 && sum.b == m.y && sum.n == m.w.rows &&
         AreApart({sum.y, 1, sum.n, 0}, {m.x, 1, m.w.cols, 0});
}

bool Fits(const Rope& k) {
  if (!Are<Rope>()) return false;
  const Rope& q = Waiting<Rope>(0);
  return AreApart(ValuesAt(k.y, k), ValuesAt(q.y, q)) &&
         AreApart(ValuesAt(k.x, k), ValuesAt(q.y, q)) &&
         AreApart(ValuesAt(k.y, k), ValuesAt(q.x, q));
}

bool Fits(const KvStore& store) {
  if (!Are<Rope, Rope>()) return false;
  const Rope &q = Waiting<Rope>(0), &k = Waiting<Rope>(1);
  const Values v = {store.v, store.tokens, store.kv_heads * store.head_dim, store.stride};
  return AreApart(v, ValuesAt(q.y, q)) && AreApart(v, ValuesAt(k.y, k)) && store.k == k.y &&
         store.stride == k.stride && store.tokens == k.tokens && store.kv_heads == k.heads &&
         store.head_dim == k.head_dim;
}

// ---- launches

void LaunchAlone(const JoinableStep& step) {
  struct Launcher {
    void operator()(const Norm& a) const { LaunchRmsNorm(a, DeviceStream()); }
    void operator()(const Quantize& a) const { LaunchQuantize(a, DeviceStream()); }
    void operator()(const Matvec& a) const { LaunchMatvec(a, DeviceStream()); }
    void operator()(const ResidualAdd& a) const { LaunchResidualAdd(a, DeviceStream()); }
    void operator()(const Rope& a) const { LaunchRope(a, DeviceStream()); }
    void operator()(const KvStore& a) const { LaunchKvStore(a, DeviceStream()); }
  };
  std::visit(Launcher(), step);
}

void LaunchMatvecs() {
  std::vector<Matvec> parts;
  for (const JoinableStep& step : waiting) parts.push_back(std::get<Matvec>(step));
  LaunchProjections(parts, DeviceStream());
}

void LaunchAll() {
  if (Are<Norm, Quantize>())
    LaunchRmsNormQuantize(Waiting<Norm>(0), Waiting<Quantize>(1), DeviceStream());
  else if (Are<Matvec, ResidualAdd>())
    LaunchMatvecResidualAdd(Waiting<Matvec>(0), Waiting<ResidualAdd>(1), DeviceStream());
  else if (Are<Matvec, Matvec>() || Are<Matvec, Matvec, Matvec>())
    LaunchMatvecs();
  else if (Are<Rope, Rope, KvStore>())
    LaunchRopeKvStore(Waiting<Rope>(0), Waiting<Rope>(1), Waiting<KvStore>(2), DeviceStream());
  else
    std::ranges::for_each(waiting, LaunchAlone);
}

}  // namespace

void LaunchLater(const JoinableStep& step) {
  if (!std::visit([](const auto& a) { return Fits(a); }, step)) LaunchWaiting();
  waiting.push_back(step);
}

void LaunchWaiting() {
  try {
    LaunchAll();
  } catch (...) {
    ForgetWaiting();
    throw;
  }
  ForgetWaiting();
}

void ForgetWaiting() {
  waiting.clear();
}

}  // namespace lab::LAB_CUDA_NAMESPACE
