// Sums of taps on a device, through the SIMT layer.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <tuple>

#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"
#include "lab/random.h"
#include "lab/stats.h"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

constexpr size_t kRows = 3;
constexpr float kNaN = std::bit_cast<float>(0x7fc00001), kOtherNaN = std::bit_cast<float>(~0u);

using Values = std::vector<float>;

// Values of both signs and several sizes.
Values RandomRow(size_t n, uint64_t seed) {
  Random random(seed);
  Values row(n);
  for (float& x : row) {
    x = random.Signed();
    x = std::ldexp(x, static_cast<int>(random.Below(36)));
  }
  return row;
}

struct Kind {
  const char* name;
  std::function<void(Values&)> change;  // what makes a random row one of this kind
};
const Kind kKinds[] = {
    {"random", [](Values&) {}},
    {"zeros of both signs",
     [](Values& row) {
       for (size_t i = 0; i < row.size(); ++i) row[i] = i % 3 ? 0.0f : -0.0f;
     }},
    {"equal maxima",
     [](Values& row) {
       for (const size_t i : {row.size() - 1, row.size() / 2, row.size() / 3})
         row[i] = i % 2 ? 1e15f : -1e15f;
     }},
    {"a small spread far from zero",
     [](Values& row) {
       for (float& x : row) x = 1000 + std::fmod(x, 1024.0f) / 8192;
     }},
    {"subnormal",
     [](Values& row) {
       for (float& x : row) x = std::ldexp(x, -150);
     }},
    {"NaN",
     [](Values& row) {
       row.back() = kNaN;
       row[row.size() / 2] = kOtherNaN;
     }},
    {"nothing but NaN", [](Values& row) { std::fill(row.begin(), row.end(), kOtherNaN); }},
    {"Inf", [](Values& row) { row[row.size() / 2] = -INFINITY; }},
    {"Inf of both signs",
     [](Values& row) {
       row.back() = INFINITY;
       row[row.size() / 2] = -INFINITY;
     }},
    {"NaN behind Inf",
     [](Values& row) {
       row[row.size() / 2] = INFINITY;
       row.back() = kNaN;
     }},
};

// kRows rows, `gap` values apart that no kernel may count.
std::vector<TapSums> OnDevice(const std::vector<Values>& rows, size_t gap) {
  const size_t n = rows[0].size(), stride = n + gap, pieces = TapSums::Pieces(n);
  Values values((rows.size() - 1) * stride + n, kNaN);
  for (size_t t = 0; t < rows.size(); ++t)
    std::copy(rows[t].begin(), rows[t].end(), values.begin() + static_cast<ptrdiff_t>(t * stride));
  std::vector<TapSums> sums(rows.size() * pieces);
  RunOnDevice(TapSumsArgs{values.data(), rows.size(), n, stride, sums.data()}, LaunchTapSums);
  return sums;
}

// ---- the same in the order that kernels/tap_sums_cuda.cu states, value by value

double Halved(std::vector<double> v) {
  for (size_t half = v.size() / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; ++i) v[i] += v[i + half];
  return v[0];
}

// The sum over i < n, add(sum, i) being one step of it.
double InOrder(size_t n, const std::function<double(double, size_t)>& add) {
  std::vector<double> warps(8);
  for (size_t w = 0; w < 8; ++w) {
    std::vector<double> lanes(32, 0.0);
    for (size_t lane = 0; lane < 32; ++lane)
      for (size_t i = 32 * w + lane; i < n; i += 256) lanes[lane] = add(lanes[lane], i);
    warps[w] = Halved(lanes);
  }
  return Halved(warps);
}

TapSums Expected(const Values& row, size_t first) {
  const float* const x = row.data() + first;
  const size_t n = std::min(row.size() - first, TapSums::kPiece);
  TapSums s = {};
  s.n = static_cast<uint32_t>(n);
  s.sum = InOrder(n, [x](double sum, size_t i) { return sum + x[i]; });
  s.squares = InOrder(n, [x](double sum, size_t i) { return sum + double{x[i]} * x[i]; });
  const double mean = s.sum / static_cast<double>(n);
  s.deviations =
      InOrder(n, [=](double sum, size_t i) { return std::fma(x[i] - mean, x[i] - mean, sum); });
  s.min = INFINITY, s.max = -INFINITY;
  float absmax = -1;
  for (size_t i = 0; i < n; ++i) {
    s.zeros += x[i] == 0;
    s.inf += std::isinf(x[i]);
    if (std::isnan(x[i]) && s.nan++ == 0) s.argmax = first + i;
    if (std::isnan(x[i])) continue;
    s.min = std::min(s.min, x[i]);
    s.max = std::max(s.max, x[i]);
    if (s.nan == 0 && std::abs(x[i]) > absmax) absmax = std::abs(x[i]), s.argmax = first + i;
  }
  return s;
}

bool SameBits(double a, double b) {
  return std::isnan(a) ? std::isnan(b) : std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b);
}

void ExpectSame(const TapSums& got, const TapSums& expected) {
  EXPECT_PRED2(SameBits, got.sum, expected.sum);
  EXPECT_PRED2(SameBits, got.squares, expected.squares);
  EXPECT_PRED2(SameBits, got.deviations, expected.deviations);
  EXPECT_EQ(got.min, expected.min);
  EXPECT_EQ(got.max, expected.max);
  EXPECT_EQ(got.argmax, expected.argmax);
  EXPECT_EQ(got.n, expected.n);
  EXPECT_EQ(got.nan, expected.nan);
  EXPECT_EQ(got.inf, expected.inf);
  EXPECT_EQ(got.zeros, expected.zeros);
}

// ---- against the statistics of the CPU

// What two orders of float64 summation may differ by (gamma_n of Higham 2002, to first order), the
// longest chain of either being n / 4 values and 64 that are put together.
void ExpectWithinTheBound(const Stats& ours, const Stats& theirs, const Values& row) {
  EXPECT_EQ(ours.n, theirs.n);
  EXPECT_EQ(ours.nan, theirs.nan);
  EXPECT_EQ(ours.inf, theirs.inf);
  EXPECT_EQ(ours.zeros, theirs.zeros);
  EXPECT_EQ(ours.argmax, theirs.argmax);
  const auto n = static_cast<double>(row.size()), gamma = 2 * (n / 4 + 64) * 0x1p-53;
  double magnitudes = 0, farthest = 0;  // sum |x|; a piece's mean from the row's, at most
  for (const float x : row) {
    magnitudes += std::abs(x);
    farthest = std::max(farthest, std::abs(x - ours.mean));
  }
  if (row.size() <= TapSums::kPiece) farthest = 0;
  const double mean = gamma * magnitudes / n, deviations = n * theirs.std * theirs.std;
  const double spread = gamma * deviations + 2 * farthest * n * mean + n * mean * mean;
  const std::tuple<double, double, double> figures[] = {
      {ours.min, theirs.min, 0},
      {ours.max, theirs.max, 0},
      {ours.absmax, theirs.absmax, 0},
      {ours.mean, theirs.mean, mean},
      {ours.rms, theirs.rms, gamma * theirs.rms},
      {ours.l2, theirs.l2, gamma * theirs.l2},
      {ours.crest, theirs.crest, gamma * theirs.crest},
      {n * ours.std * ours.std, deviations, spread},
  };
  for (const auto& [got, expected, bound] : figures) {
    if (std::isfinite(expected))
      EXPECT_LE(std::abs(got - expected), bound) << got << " " << expected;
    else
      EXPECT_PRED2(SameBits, got, expected);
  }
}

void CheckRows(const Kind& kind, size_t n, size_t gap, uint64_t seed) {
  SCOPED_TRACE(std::string(kind.name) + ", " + std::to_string(n) + " values, " +
               std::to_string(gap) + " between rows, order " + std::to_string(seed));
  std::vector<Values> rows;
  for (size_t t = 0; t < kRows; ++t) {
    rows.push_back(RandomRow(n, 10 * n + t));
    kind.change(rows[t]);
  }
  SetScheduleSeed(seed);
  const std::vector<TapSums> sums = OnDevice(rows, gap);
  const size_t pieces = TapSums::Pieces(n);
  for (size_t t = 0; t < kRows; ++t) {
    for (size_t p = 0; p < pieces; ++p)
      ExpectSame(sums[t * pieces + p], Expected(rows[t], p * TapSums::kPiece));
    ExpectWithinTheBound(StatsOf(std::span(sums).subspan(t * pieces, pieces)),
                         ComputeStats(rows[t].data(), n), rows[t]);
  }
}

TEST(CudaHostTapSums, HaveTheBitsOfTheirOrderAndAgreeWithTheCpu) {
  for (const Kind& kind : kKinds)
    for (const size_t n : {1, 7, 16, 17, 256, 1536, 4096, 4097, 9000})
      for (const size_t gap : {0, 5})
        for (const uint64_t seed : {1, 2, 3}) CheckRows(kind, n, gap, seed);
  SetScheduleSeed(1);
}

TEST(CudaHostTapSums, OfAsManyValuesAsLogitsHave) {
  CheckRows(kKinds[0], 151936, 0, 1);
}

TEST(CudaHostTapSums, WithoutRowsNothingIsWritten) {
  const float x = 1;
  TapSums untouched = {};
  untouched.n = 17;
  for (const auto& [tokens, n] : {std::pair<size_t, size_t>{0, 1}, {1, 0}})
    RunOnDevice(TapSumsArgs{&x, tokens, n, 1, &untouched}, LaunchTapSums);
  EXPECT_EQ(untouched.n, 17u);
}

}  // namespace
}  // namespace lab::LAB_CUDA_NAMESPACE
