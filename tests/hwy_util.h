#pragma once
// What the tests of the float rows on Highway share: guarded buffers, random inputs and weights, a
// comparison in units of the tolerance, and a loop over the targets that this machine runs.
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "kernels/half.h"
#include "lab/registry.h"
#include "reference/dequant_ref.h"

namespace lab::hwy_test {

constexpr double kU = 0x1p-24;
// The rows keep this many partial sums on every target: a chain of n/32 additions, then 5 more.
constexpr double kPartialSums = 32;

inline double ChainLength(size_t n) {
  return static_cast<double>(n) / kPartialSums + 5;
}

/// `test` once for each target, with that target in use.
inline void OnEveryTarget(const std::function<void()>& test) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    test();
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
}

inline const Row& HwyRow(Op op) {
  return *FindRow(op, Contract::f32, Backend::hwy);
}

template <class Args>
void RunOracle(Op op, const Args& args) {
  RunRow(*FindRow(op, Contract::f32, Backend::oracle), args, 1);
}

/// n floats at an address that is not a multiple of 8, between guard words that are NaN. An output
/// starts as NaN. Inputs have other guards, because NaN * NaN has the bits of its first factor.
class Floats {
 public:
  explicit Floats(size_t n) : Floats(n, 0x7fc0beef) {}
  explicit Floats(const std::vector<float>& values) : Floats(values.size(), 0x7fc0dead) {
    std::copy(values.begin(), values.end(), data());
  }
  float* data() { return reinterpret_cast<float*>(words_.data() + 1); }
  const float* data() const { return reinterpret_cast<const float*>(words_.data() + 1); }
  size_t size() const { return n_; }
  float operator[](size_t i) const { return data()[i]; }
  std::vector<double> Doubles() const { return {data(), data() + n_}; }
  std::vector<uint32_t> Bits() const { return {words_.begin() + 1, words_.end() - kGuards}; }
  bool GuardsIntact() const {
    return words_[0] == guard_ && std::all_of(words_.end() - kGuards, words_.end(),
                                              [&](uint32_t w) { return w == guard_; });
  }

 private:
  static constexpr size_t kGuards = 64;
  Floats(size_t n, uint32_t guard) : n_(n), guard_(guard), words_(n + 1 + kGuards, guard) {}

  size_t n_;
  uint32_t guard_;
  std::vector<uint32_t> words_;
};

/// Counts what it compares and keeps the worst error in units of the tolerance.
class Comparison {
 public:
  explicit Comparison(std::string op) : op_(std::move(op)) {}
  ~Comparison() {
    EXPECT_GT(compared_, 0u) << op_;
    double& worst = Worst()[op_];
    worst = std::max(worst, worst_);
    testing::Test::RecordProperty("worst_" + op_, std::to_string(worst));
  }

  void Check(double got, double want, double tolerance, size_t i) {
    ++compared_;
    if (std::isfinite(got) != std::isfinite(want)) return Fail(got, want, tolerance, i);
    if (!std::isfinite(want)) return;
    const double error = std::abs(got - want);
    if (!(error <= tolerance)) return Fail(got, want, tolerance, i);
    if (error > 0) worst_ = std::max(worst_, error / tolerance);
  }

 private:
  void Fail(double got, double want, double tolerance, size_t i) {
    if (++failed_ <= 3)
      ADD_FAILURE() << op_ << " element " << i << ": " << got << " instead of " << want
                    << ", error " << std::abs(got - want) / tolerance << " of the tolerance";
  }
  static std::map<std::string, double>& Worst() {
    static std::map<std::string, double> worst;
    return worst;
  }
  std::string op_;
  size_t compared_ = 0, failed_ = 0;
  double worst_ = 0;
};

/// Equal bits, or NaN both.
inline bool SameValue(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

inline void ExpectSameValues(const Floats& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  ASSERT_TRUE(got.GuardsIntact());
  for (size_t i = 0; i < want.size(); ++i)
    ASSERT_TRUE(SameValue(got[i], static_cast<float>(want[i])))
        << "element " << i << ": " << got[i] << " instead of " << want[i];
}

inline std::vector<float> Normal(size_t n, uint32_t seed, float scale = 1) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(n);
  for (float& v : values) v = normal(rng);
  return values;
}

enum class Kind { Plain, OneChannel, Massive, Zeros, NonFinite };
constexpr Kind kKinds[] = {Kind::Plain, Kind::OneChannel, Kind::Massive, Kind::Zeros,
                           Kind::NonFinite};

/// [tokens, n] activations.
inline std::vector<float> Activations(Kind kind, size_t tokens, size_t n, uint32_t seed) {
  if (kind == Kind::Zeros) return std::vector<float>(tokens * n);
  std::vector<float> x = Normal(tokens * n, seed);
  for (size_t t = 0; t < tokens; ++t) {
    if (kind == Kind::OneChannel) x[t * n + n / 3] *= 2000;
    if (kind == Kind::Massive && t == 0)
      for (size_t i = 0; i < n; i += 37) x[i] = i % 2 ? 12000 : -9000;
  }
  if (kind == Kind::NonFinite) {
    x[n / 2] = INFINITY;
    if (tokens > 1) x[n + n - 1] = NAN;
    if (tokens > 2) x[2 * n] = -INFINITY;
  }
  return x;
}

/// Random weights. The bytes lie at an odd multiple of 2 and end where the matrix does.
class Weights {
 public:
  Weights(BlockType type, size_t rows, size_t cols, uint32_t seed, bool any_scale = false) {
    view_ = {type, nullptr, rows, cols};
    const size_t shift = type == BlockType::F32 ? 4 : 2;
    bytes_.resize(shift + view_.bytes());
    std::mt19937 rng(seed);
    for (uint8_t& b : bytes_) b = static_cast<uint8_t>(rng());
    view_.data = bytes_.data() + shift;
    if (!any_scale) SetScales(bytes_.data() + shift, rng);
  }
  const WeightView& view() const { return view_; }

 private:
  void SetScales(uint8_t* data, std::mt19937& rng) {
    const size_t n = view_.rows * view_.cols, block = InfoOf(view_.type).bytes;
    std::normal_distribution<float> normal(0, 0.05f);
    const auto put = [](uint8_t* at, auto value) { std::memcpy(at, &value, sizeof value); };
    for (size_t i = 0; i < n / InfoOf(view_.type).elements; ++i) {
      const float value = normal(rng);
      uint8_t* at = data + i * block;
      switch (view_.type) {
        case BlockType::F32:
          put(at, value);
          break;
        case BlockType::BF16:
          put(at, static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16));
          break;
        case BlockType::Q6_K:
          put(at + 208, FloatToHalf(value / 500));
          break;
        case BlockType::Q4_K:
        case BlockType::Q5_K:
          put(at + 2, FloatToHalf(normal(rng) / 50));
          [[fallthrough]];
        default:
          put(at, FloatToHalf(view_.type == BlockType::F16 ? value : value / 100));
      }
    }
  }

  std::vector<uint8_t> bytes_;
  WeightView view_;
};

/// sum_c |w[r, c] x[t, c]| for all t, r.
inline std::vector<double> SumsOfMagnitudes(const WeightView& w, const std::vector<float>& x,
                                            size_t tokens) {
  std::vector<double> sums(tokens * w.rows);
  std::vector<float> row(w.cols);
  for (size_t r = 0; r < w.rows; ++r) {
    DequantRow(w.type, w.row(r), w.cols, row.data());
    for (size_t t = 0; t < tokens; ++t)
      for (size_t c = 0; c < w.cols; ++c)
        sums[t * w.rows + r] += std::abs(static_cast<double>(row[c]) * x[t * w.cols + c]);
  }
  return sums;
}

/// Runs a row on k slices of nearly equal size, one after the other.
template <class Args>
void RunSliced(Op op, const Args& args, size_t k) {
  const size_t items = args.Items();
  for (size_t s = 0; s < k; ++s) {
    const Args slice = args.Slice(items * s / k, items * (s + 1) / k);
    HwyRow(op).run(&slice);
  }
}

}  // namespace lab::hwy_test
