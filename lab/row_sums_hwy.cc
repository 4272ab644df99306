#include <algorithm>

#include "kernels/targets-inl.h"
#include "lab/row_sums.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lab/row_sums_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
// Per target, hence behind it.
#include "hwy/contrib/algo/find-inl.h"
#include "hwy/contrib/math/math-inl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

using Doubles = hn::CappedTag<double, 8>;

template <class D>
HWY_INLINE hn::Vec<D> LoadDoubles(D d, const double* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> LoadDoubles(D d, const float* from) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<float, D>(), from));
}

// Two chains of additions for each sum, then whole vectors, then what is left, value by value.
struct Chains {
  hn::Vec<Doubles> sum[2], squares[2];
};
HWY_INLINE void AddTo(Chains& s, size_t chain, hn::Vec<Doubles> x) {
  s.sum[chain] = hn::Add(s.sum[chain], x);
  s.squares[chain] = hn::MulAdd(x, x, s.squares[chain]);
}

// What needs no float64, on vectors of the values as they are.
template <class T>
using Whole = hn::CappedTag<T, 64 / sizeof(T)>;
template <class T>
struct Range {
  hn::Vec<Whole<T>> min, max;
  uint64_t zeros = 0;

  HWY_INLINE void Add(const T* values, size_t n) {
    const Whole<T> d;
    for (size_t i = 0; i < n; i += hn::Lanes(d)) {
      const auto x = hn::LoadU(d, values + i);
      min = hn::Min(min, x);
      max = hn::Max(max, x);
      zeros += hn::CountTrue(d, hn::Eq(x, hn::Zero(d)));
    }
  }
};

HWY_INLINE double Total(hn::Vec<Doubles> v) {
  return hn::GetLane(hn::SumOfLanes(Doubles(), v));
}

template <class T>
HWY_INLINE RowSums SumRowOf(const T* values, size_t n) {
  const Doubles d;
  const size_t lanes = hn::Lanes(d);
  Chains s;
  for (auto* pair : {s.sum, s.squares}) pair[0] = pair[1] = hn::Zero(d);
  const Whole<T> whole;
  Range<T> range;
  range.min = range.max = hn::Set(whole, values[0]);
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    range.Add(values + i, 2 * lanes);
    AddTo(s, 0, LoadDoubles(d, values + i));
    AddTo(s, 1, LoadDoubles(d, values + i + lanes));
  }
  RowSums r;
  r.min = static_cast<double>(hn::GetLane(hn::MinOfLanes(whole, range.min)));
  r.max = static_cast<double>(hn::GetLane(hn::MaxOfLanes(whole, range.max)));
  r.sum = Total(hn::Add(s.sum[0], s.sum[1]));
  r.squares = Total(hn::Add(s.squares[0], s.squares[1]));
  r.zeros = range.zeros;
  for (; i < n; ++i) {
    const double x = values[i];
    r.min = std::min(r.min, x);
    r.max = std::max(r.max, x);
    r.sum += x;
    r.squares += x * x;
    r.zeros += x == 0;
  }
  return r;
}

template <class T>
HWY_INLINE size_t Find(const T* values, size_t n, T magnitude) {
  return hn::FindIf(Whole<T>(), values, n, [magnitude](auto d, auto x) LAB_LAMBDA {
    return hn::Eq(hn::Abs(x), hn::Set(d, magnitude));
  });
}

// The sum of f(x) over all values: f of a vector of doubles.
template <class T, class F>
HWY_INLINE double SumOf(const T* values, size_t n, F&& f) {
  const Doubles d;
  const size_t lanes = hn::Lanes(d);
  auto a = hn::Zero(d), b = a;
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    a = hn::Add(a, f(d, LoadDoubles(d, values + i)));
    b = hn::Add(b, f(d, LoadDoubles(d, values + i + lanes)));
  }
  double sum = Total(hn::Add(a, b));
  const hn::CappedTag<double, 1> one;
  for (; i < n; ++i) sum += hn::GetLane(f(one, hn::Set(one, static_cast<double>(values[i]))));
  return sum;
}

template <class T>
HWY_INLINE double Deviations(const T* values, size_t n, double mean) {
  return SumOf(values, n, [mean](auto d, auto x) LAB_LAMBDA {
    const auto deviation = hn::Sub(x, hn::Set(d, mean));
    return hn::Mul(deviation, deviation);
  });
}

template <class T>
HWY_INLINE double Exponentials(const T* values, size_t n, double largest) {
  return SumOf(values, n, [largest](auto d, auto x) LAB_LAMBDA {
    const auto below = hn::Sub(x, hn::Set(d, largest));
    // exp(-700) is nothing beside the largest term, which is 1; Highway's Exp ends at -1000 and
    // makes a number of NaN.
    const auto e = hn::Exp(d, hn::Max(below, hn::Set(d, -700.0)));
    return hn::IfThenElse(hn::IsNaN(below), below, e);
  });
}

RowSums SumFloats(const float* values, size_t n) {
  return SumRowOf(values, n);
}
RowSums SumDoubles(const double* values, size_t n) {
  return SumRowOf(values, n);
}
size_t FindFloat(const float* values, size_t n, double magnitude) {
  const auto rounded = static_cast<float>(magnitude);
  return static_cast<double>(rounded) == magnitude ? Find(values, n, rounded) : n;
}
size_t FindDouble(const double* values, size_t n, double magnitude) {
  return Find(values, n, magnitude);
}
double DeviationsFloats(const float* values, size_t n, double mean) {
  return Deviations(values, n, mean);
}
double DeviationsDoubles(const double* values, size_t n, double mean) {
  return Deviations(values, n, mean);
}
double ExpFloats(const float* values, size_t n, double largest) {
  return Exponentials(values, n, largest);
}
double ExpDoubles(const double* values, size_t n, double largest) {
  return Exponentials(values, n, largest);
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(SumFloats);
HWY_EXPORT(SumDoubles);
HWY_EXPORT(FindFloat);
HWY_EXPORT(FindDouble);
HWY_EXPORT(DeviationsFloats);
HWY_EXPORT(DeviationsDoubles);
HWY_EXPORT(ExpFloats);
HWY_EXPORT(ExpDoubles);

RowSums SumRow(const float* values, size_t n) {
  return HWY_DYNAMIC_DISPATCH(SumFloats)(values, n);
}
RowSums SumRow(const double* values, size_t n) {
  return HWY_DYNAMIC_DISPATCH(SumDoubles)(values, n);
}
size_t FindMagnitude(const float* values, size_t n, double magnitude) {
  return HWY_DYNAMIC_DISPATCH(FindFloat)(values, n, magnitude);
}
size_t FindMagnitude(const double* values, size_t n, double magnitude) {
  return HWY_DYNAMIC_DISPATCH(FindDouble)(values, n, magnitude);
}
double SumDeviations(const float* values, size_t n, double mean) {
  return HWY_DYNAMIC_DISPATCH(DeviationsFloats)(values, n, mean);
}
double SumDeviations(const double* values, size_t n, double mean) {
  return HWY_DYNAMIC_DISPATCH(DeviationsDoubles)(values, n, mean);
}
double SumExp(const float* values, size_t n, double largest) {
  return HWY_DYNAMIC_DISPATCH(ExpFloats)(values, n, largest);
}
double SumExp(const double* values, size_t n, double largest) {
  return HWY_DYNAMIC_DISPATCH(ExpDoubles)(values, n, largest);
}
}  // namespace lab
#endif
