// The float rows on Highway against the oracle, element by element, on every target that this
// machine runs.
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

namespace lab {
namespace {

constexpr double kU = 0x1p-24;
// The rows keep this many partial sums on every target: a chain of n/32 additions, then 5 more.
constexpr double kPartialSums = 32;

double ChainLength(size_t n) {
  return static_cast<double>(n) / kPartialSums + 5;
}

/// `test` once for each target, with that target in use.
void OnEveryTarget(const std::function<void()>& test) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    test();
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
}

const Row& HwyRow(Op op) {
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
bool SameValue(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

void ExpectSameValues(const Floats& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  ASSERT_TRUE(got.GuardsIntact());
  for (size_t i = 0; i < want.size(); ++i)
    ASSERT_TRUE(SameValue(got[i], static_cast<float>(want[i])))
        << "element " << i << ": " << got[i] << " instead of " << want[i];
}

std::vector<float> Normal(size_t n, uint32_t seed, float scale = 1) {
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
std::vector<float> Activations(Kind kind, size_t tokens, size_t n, uint32_t seed) {
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
std::vector<double> SumsOfMagnitudes(const WeightView& w, const std::vector<float>& x,
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

// ---- element-wise ops: lengths around the vector, and every place where a slice may end

constexpr size_t kLongest = 2 * 16 + 3;

// Two inputs, exact: run(a, b, y, n) on the row, oracle likewise.
template <template <class> class Args>
void CheckExactPairs(Op op) {
  OnEveryTarget([&] {
    for (size_t n = 0; n <= kLongest; ++n) {
      std::vector<float> a = Normal(n, 1, 1e3f), b = Normal(n, 2);
      if (n > 4) a[1] = INFINITY, b[2] = NAN, a[3] = b[3] = 0x1p-149f, a[4] = 3e38f, b[4] = 3e38f;
      const Floats fa(a), fb(b);
      const std::vector<double> da = fa.Doubles(), db = fb.Doubles();
      std::vector<double> want(n, NAN);
      RunOracle(op, Args<double>{da.data(), db.data(), want.data(), n});
      Floats y(n), in_place(a), in_place_b(b);
      HwyRow(op).run(std::data({Args<float>{fa.data(), fb.data(), y.data(), n}}));
      ExpectSameValues(y, want);
      HwyRow(op).run(std::data({Args<float>{in_place.data(), fb.data(), in_place.data(), n}}));
      ExpectSameValues(in_place, want);
      HwyRow(op).run(std::data({Args<float>{fa.data(), in_place_b.data(), in_place_b.data(), n}}));
      ExpectSameValues(in_place_b, want);
      Floats sliced(n);
      RunSliced(op, Args<float>{fa.data(), fb.data(), sliced.data(), n}, 3);
      EXPECT_EQ(sliced.Bits(), y.Bits());
    }
  });
}

TEST(HwyF32Elementwise, ResidualAddIsExact) {
  CheckExactPairs<ResidualAddArgs>(Op::residual_add);
}
TEST(HwyF32Elementwise, SwigluIsExact) {
  CheckExactPairs<SwigluArgs>(Op::swiglu);
}

// ---- silu

/// The distance between the floats on either side of `value`, above the subnormals.
double Ulp(double value) {
  const int exponent = std::max(std::ilogb(std::max(std::abs(value), 0x1p-126)), -126);
  return std::ldexp(1.0, exponent - 23);
}

void CheckSilu(const std::vector<float>& x, Comparison& comparison) {
  const Floats fx(x);
  Floats y(x.size());
  HwyRow(Op::silu).run(std::data({SiluArgs<float>{fx.data(), y.data(), x.size()}}));
  const std::vector<double> dx = fx.Doubles();
  std::vector<double> want(x.size(), NAN);
  RunOracle(Op::silu, SiluArgs<double>{dx.data(), want.data(), x.size()});
  for (size_t i = 0; i < x.size(); ++i)
    comparison.Check(y[i], want[i], std::max(4 * Ulp(want[i]), 1e-38), i);
  EXPECT_TRUE(y.GuardsIntact());
}

TEST(HwyF32Silu, FourUlpOverTheWholeRange) {
  std::vector<float> x;
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 8191)
    x.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  for (float v = -110; v < 110; v += 0.00391f) x.push_back(v);
  OnEveryTarget([&] {
    Comparison comparison("silu");
    CheckSilu(x, comparison);
  });
}

TEST(HwyF32Silu, ValuesThatBreakTheFormula) {
  const std::vector<float> x = {0,    -0.0f, 88,      89,       104,  105,   200,      -87.5f, -88,
                                -104, -105,  -200,    -1e4f,    1e4f, 3e38f, -3e38f,   1e-45f, NAN,
                                NAN,  1,     -1e-40f, INFINITY, -1,   -50,   -INFINITY};
  OnEveryTarget([&] {
    Comparison comparison("silu");
    CheckSilu(x, comparison);
  });
}

TEST(HwyF32Silu, LengthsAndSlices) {
  OnEveryTarget([&] {
    Comparison comparison("silu");
    for (size_t n = 1; n <= kLongest; ++n) {
      const std::vector<float> x = Normal(n, 3, 30);
      CheckSilu(x, comparison);
      const Floats fx(x);
      Floats whole(n), sliced(n), in_place(x);
      HwyRow(Op::silu).run(std::data({SiluArgs<float>{fx.data(), whole.data(), n}}));
      HwyRow(Op::silu).run(std::data({SiluArgs<float>{in_place.data(), in_place.data(), n}}));
      RunSliced(Op::silu, SiluArgs<float>{fx.data(), sliced.data(), n}, 3);
      EXPECT_EQ(whole.Bits(), in_place.Bits());
      EXPECT_EQ(whole.Bits(), sliced.Bits());
    }
  });
}

// ---- dequantisation

TEST(HwyF32Dequant, BitsOfEveryTypeWithAnyScale) {
  OnEveryTarget([&] {
    for (const BlockTypeInfo& info : kBlockTypes) {
      SCOPED_TRACE(info.name);
      // Any bytes at all: scales that are negative, subnormal, infinite, NaN. An odd number of
      // columns where there are no blocks.
      const size_t cols = info.elements == 1 ? 300 + 7 : info.elements * 11;
      const Weights weights(info.type, 37, cols, 5, true);
      const std::vector<int32_t> ids = {36, 0, 17, 17, 1};
      Floats y(ids.size() * cols), sliced(y.size());
      std::vector<double> want(y.size(), NAN);
      const auto args = [&](auto* out) {
        return EmbedArgs<std::remove_pointer_t<decltype(out)>>{weights.view(), ids.data(), out,
                                                               ids.size()};
      };
      RunOracle(Op::embed, args(want.data()));
      RunRow(HwyRow(Op::embed), args(y.data()), 1);
      RunSliced(Op::embed, args(sliced.data()), 3);
      ExpectSameValues(y, want);
      EXPECT_EQ(sliced.Bits(), y.Bits());
    }
  });
}

TEST(HwyF32Dequant, RowsOfTheOps) {
  OnEveryTarget([&] {
    for (const auto& [op, type] :
         {std::pair(Op::q4k_dequant, BlockType::Q4_K), std::pair(Op::q6k_dequant, BlockType::Q6_K)})
      for (size_t rows : {1, 5}) {
        const Weights weights(type, rows, 768, 6, true);
        Floats y(rows * 768);
        std::vector<double> want(y.size(), NAN);
        RunOracle(op, DequantArgs<double>{weights.view(), want.data()});
        RunRow(HwyRow(op), DequantArgs<float>{weights.view(), y.data()}, 3);
        ExpectSameValues(y, want);
      }
  });
}

// ---- rms_norm and rope

TEST(HwyF32RmsNorm, WithinItsTolerance) {
  OnEveryTarget([&] {
    Comparison comparison("rms_norm");
    for (const Kind kind : kKinds)
      for (size_t n : {1, 31, 32, 33, 256, 1536, 1543}) {
        const size_t tokens = 3;
        const Floats x(Activations(kind, tokens, n, 7)), weight(Normal(n, 8));
        const std::vector<double> dx = x.Doubles();
        std::vector<double> want(x.size(), NAN);
        RunOracle(Op::rms_norm,
                  RmsNormArgs<double>{dx.data(), weight.data(), want.data(), tokens, n, 1e-6f});
        Floats y(x.size()), sliced(x.size()), in_place(x);
        const RmsNormArgs<float> args = {x.data(), weight.data(), y.data(), tokens, n, 1e-6f};
        HwyRow(Op::rms_norm).run(&args);
        const double relative = (std::sqrt(ChainLength(n)) / 2 + 4) * kU;
        for (size_t i = 0; i < y.size(); ++i)
          comparison.Check(y[i], want[i], relative * std::abs(want[i]), i);
        EXPECT_TRUE(y.GuardsIntact());
        RmsNormArgs<float> other = args;
        other.y = sliced.data();
        RunSliced(Op::rms_norm, other, 3);
        EXPECT_EQ(sliced.Bits(), y.Bits());
        other.x = other.y = in_place.data();
        HwyRow(Op::rms_norm).run(&other);
        EXPECT_EQ(in_place.Bits(), y.Bits());
      }
  });
}

TEST(HwyF32Rope, FourRoundingsOfThePair) {
  OnEveryTarget([&] {
    Comparison comparison("rope");
    for (const Kind kind : kKinds)
      for (size_t head_dim : {2, 10, 64, 70, 128}) {
        const size_t tokens = 3, heads = 3, half = head_dim / 2, stride = heads * head_dim + 5;
        const Floats x(Activations(kind, tokens, stride, 9));
        std::vector<float> angles = Normal(tokens * half, 10, 100), cos(angles), sin(angles);
        for (float& v : cos) v = std::cos(v);
        for (float& v : sin) v = std::sin(v);
        const Floats fc(cos), fs(sin);
        const std::vector<double> dx = x.Doubles(), dc = fc.Doubles(), ds = fs.Doubles();
        std::vector<double> want(x.size(), NAN);
        RunOracle(Op::rope, RopeArgs<double>{dx.data(), want.data(), dc.data(), ds.data(), tokens,
                                             heads, head_dim, stride});
        Floats y(x.size()), sliced(x.size()), in_place(x);
        RopeArgs<float> args = {x.data(), y.data(), fc.data(), fs.data(),
                                tokens,   heads,    head_dim,  stride};
        HwyRow(Op::rope).run(&args);
        args.y = sliced.data();
        RunSliced(Op::rope, args, 3);
        EXPECT_EQ(sliced.Bits(), y.Bits());
        args.x = args.y = in_place.data();
        HwyRow(Op::rope).run(&args);
        for (size_t t = 0; t < tokens; ++t)
          for (size_t c = 0; c < stride; ++c) {
            const size_t at = t * stride + c, i = c % head_dim;
            if (c >= heads * head_dim) {  // not the row's to write
              EXPECT_TRUE(std::isnan(y[at]));
              continue;
            }
            const size_t partner = i < half ? at + half : at - half;
            comparison.Check(y[at], want[at], 4 * kU * std::hypot(dx[at], dx[partner]), at);
            EXPECT_TRUE(SameValue(y[at], in_place[at]));
          }
        EXPECT_TRUE(y.GuardsIntact());
      }
  });
}

// ---- matvec, down_proj, gate_up

struct MatvecShape {
  size_t rows, cols, tokens;
};

/// Columns for a type: one block and several, odd numbers where there are no blocks.
std::vector<size_t> ColsFor(const BlockTypeInfo& info) {
  if (info.elements == 1) return {1, 31, 256, 391};
  if (info.elements == 32) return {32, 256, 288};
  return {256, 1536};
}

MatvecArgs<float> MatvecOf(const WeightView& w, const Floats& x, Floats& y, size_t tokens) {
  MatvecArgs<float> args = {};
  args.w = w;
  args.x = x.data();
  args.y = y.data();
  args.tokens = tokens;
  args.y_stride = y.size() / tokens;
  return args;
}

void CheckDot(const Floats& y, const std::vector<double>& want, const std::vector<double>& sums,
              size_t cols, Comparison& comparison) {
  ASSERT_TRUE(y.GuardsIntact());
  for (size_t i = 0; i < want.size(); ++i)
    comparison.Check(y[i], want[i],
                     4 * kU * std::sqrt(ChainLength(cols)) * sums[i] + kU * std::abs(want[i]), i);
}

void CheckMatvec(BlockType type, Kind kind, const MatvecShape& s, bool with_bias,
                 Comparison& comparison) {
  const Weights weights(type, s.rows, s.cols, 11);
  const std::vector<float> activations = Activations(kind, s.tokens, s.cols, 12);
  const Floats x(activations), bias(Normal(s.rows, 13, 100));
  const std::vector<double> dx = x.Doubles();
  const size_t n = s.tokens * s.rows;
  std::vector<double> want(n, NAN), want_sum(n, NAN);
  MatvecArgs<double> oracle = {};
  oracle.w = weights.view();
  oracle.x = dx.data();
  oracle.bias = with_bias ? bias.data() : nullptr;
  oracle.y = want.data();
  oracle.y_before_bias = want_sum.data();
  oracle.tokens = s.tokens;
  oracle.y_stride = s.rows;
  RunOracle(Op::matvec, oracle);

  Floats y(n), sum(n), alone(n);
  MatvecArgs<float> args = MatvecOf(weights.view(), x, y, s.tokens);
  args.bias = oracle.bias;
  args.y_before_bias = sum.data();
  HwyRow(s.rows % 2 ? Op::matvec : Op::down_proj).run(&args);
  const std::vector<double> magnitudes = SumsOfMagnitudes(weights.view(), activations, s.tokens);
  CheckDot(sum, want_sum, magnitudes, s.cols, comparison);
  CheckDot(y, want, magnitudes, s.cols, comparison);
  args.y = alone.data();
  args.y_before_bias = nullptr;
  HwyRow(Op::matvec).run(&args);
  EXPECT_EQ(alone.Bits(), y.Bits());
}

TEST(HwyF32Matvec, EveryTypeAndShape) {
  OnEveryTarget([&] {
    Comparison comparison("matvec");
    for (const BlockTypeInfo& info : kBlockTypes) {
      SCOPED_TRACE(info.name);
      for (const size_t cols : ColsFor(info))
        for (const size_t tokens : {1, 2, 3, 5, 17})
          for (const size_t rows : {1, 13, 26})
            CheckMatvec(info.type, Kind::Plain, {rows, cols, tokens}, rows == 13, comparison);
    }
  });
}

TEST(HwyF32Matvec, ActivationsThatReachFar) {
  OnEveryTarget([&] {
    Comparison comparison("matvec");
    for (const BlockTypeInfo& info : kBlockTypes)
      for (const Kind kind : kKinds)
        for (const size_t tokens : {1, 4})
          CheckMatvec(info.type, kind, {5, ColsFor(info).back(), tokens}, true, comparison);
  });
}

// The same bits for any slices, threads and batches.
TEST(HwyF32Matvec, BitsDoNotDependOnTheCompany) {
  OnEveryTarget([&] {
    for (const BlockTypeInfo& info : kBlockTypes) {
      SCOPED_TRACE(info.name);
      const size_t rows = 41, cols = ColsFor(info).back(), tokens = 17;
      const Weights weights(info.type, rows, cols, 14);
      const Floats x(Normal(tokens * cols, 15));
      Floats whole(tokens * rows), one_by_one(tokens * rows);
      RunRow(HwyRow(Op::matvec), MatvecOf(weights.view(), x, whole, tokens), 1);
      for (const int threads : {3, 7}) {
        Floats spread(whole.size()), sliced(whole.size());
        RunRow(HwyRow(Op::matvec), MatvecOf(weights.view(), x, spread, tokens), threads);
        EXPECT_EQ(spread.Bits(), whole.Bits());
        RunSliced(Op::matvec, MatvecOf(weights.view(), x, sliced, tokens),
                  static_cast<size_t>(threads));
        EXPECT_EQ(sliced.Bits(), whole.Bits());
      }
      for (size_t t = 0; t < tokens; ++t) {
        MatvecArgs<float> args = MatvecOf(weights.view(), x, one_by_one, tokens);
        args.x += t * cols;
        args.y += t * rows;
        args.tokens = 1;
        HwyRow(Op::matvec).run(&args);
      }
      EXPECT_EQ(one_by_one.Bits(), whole.Bits());
    }
  });
}

// Every target with FMA adds in the same order, so a run can be repeated on another machine.
TEST(HwyF32Matvec, BitsDoNotDependOnTheVectorLength) {
  for (const size_t tokens : {1, 5}) {
    const Weights weights(BlockType::Q4_K, 7, 1536, 16);
    const Floats x(Normal(tokens * 1536, 17));
    std::vector<uint32_t> first;
    OnEveryTarget([&] {
      Floats y(7 * tokens);
      RunRow(HwyRow(Op::matvec), MatvecOf(weights.view(), x, y, tokens), 1);
      const std::string target = hwy::TargetName(hwy::SupportedTargets() & HWY_TARGETS);
      const bool fma = target.starts_with("AVX") || target.starts_with("NEON");
      if (!fma) return;
      if (first.empty()) first = y.Bits();
      EXPECT_EQ(y.Bits(), first);
    });
  }
}

GateUpArgs<float> GateUpOf(const Weights& gate_weights, const Weights& up_weights, const Floats& x,
                           Floats& gate, Floats& up, size_t tokens) {
  GateUpArgs<float> args = {};
  args.w_gate = gate_weights.view();
  args.w_up = up_weights.view();
  args.x = x.data();
  args.gate = gate.data();
  args.up = up.data();
  args.tokens = tokens;
  args.y_stride = gate.size() / tokens;
  return args;
}

void CheckGateUp(BlockType gate_type, BlockType up_type, Kind kind, const MatvecShape& s,
                 Comparison& comparison) {
  const Weights gate_weights(gate_type, s.rows, s.cols, 18),
      up_weights(up_type, s.rows, s.cols, 19);
  const std::vector<float> activations = Activations(kind, s.tokens, s.cols, 20);
  const Floats x(activations);
  const std::vector<double> dx = x.Doubles();
  const size_t n = s.tokens * s.rows;
  std::vector<double> want_gate(n, NAN), want_up(n, NAN);
  GateUpArgs<double> oracle = {};
  oracle.w_gate = gate_weights.view();
  oracle.w_up = up_weights.view();
  oracle.x = dx.data();
  oracle.gate = want_gate.data();
  oracle.up = want_up.data();
  oracle.tokens = s.tokens;
  oracle.y_stride = s.rows;
  RunOracle(Op::gate_up, oracle);
  Floats gate(n), up(n), sliced_gate(n), sliced_up(n);
  HwyRow(Op::gate_up).run(std::data({GateUpOf(gate_weights, up_weights, x, gate, up, s.tokens)}));
  CheckDot(gate, want_gate, SumsOfMagnitudes(gate_weights.view(), activations, s.tokens), s.cols,
           comparison);
  CheckDot(up, want_up, SumsOfMagnitudes(up_weights.view(), activations, s.tokens), s.cols,
           comparison);
  RunSliced(Op::gate_up, GateUpOf(gate_weights, up_weights, x, sliced_gate, sliced_up, s.tokens),
            3);
  EXPECT_EQ(sliced_gate.Bits(), gate.Bits());
  EXPECT_EQ(sliced_up.Bits(), up.Bits());
}

TEST(HwyF32GateUp, EveryTypeAndMixedTypes) {
  OnEveryTarget([&] {
    Comparison comparison("gate_up");
    for (const BlockTypeInfo& info : kBlockTypes)
      for (const size_t tokens : {1, 2, 3, 5, 17})
        CheckGateUp(info.type, info.type, Kind::Plain, {7, ColsFor(info).back(), tokens},
                    comparison);
    for (const size_t tokens : {1, 5}) {
      CheckGateUp(BlockType::Q4_K, BlockType::Q6_K, Kind::Plain, {13, 512, tokens}, comparison);
      for (const Kind kind : kKinds)
        CheckGateUp(BlockType::Q4_K, BlockType::Q4_K, kind, {13, 256, tokens}, comparison);
    }
  });
}

TEST(HwyF32GateUp, BitsDoNotDependOnTheCompany) {
  OnEveryTarget([&] {
    const size_t rows = 25, cols = 1536, tokens = 5;
    const Weights gate_weights(BlockType::Q4_K, rows, cols, 21),
        up_weights(BlockType::Q4_K, rows, cols, 22);
    const Floats x(Normal(tokens * cols, 23));
    Floats gate(tokens * rows), up(tokens * rows), gate1(gate.size()), up1(gate.size());
    RunRow(HwyRow(Op::gate_up), GateUpOf(gate_weights, up_weights, x, gate, up, tokens), 7);
    for (size_t t = 0; t < tokens; ++t) {
      GateUpArgs<float> args = GateUpOf(gate_weights, up_weights, x, gate1, up1, tokens);
      args.x += t * cols;
      args.gate += t * rows;
      args.up += t * rows;
      args.tokens = 1;
      HwyRow(Op::gate_up).run(&args);
    }
    EXPECT_EQ(gate1.Bits(), gate.Bits());
    EXPECT_EQ(up1.Bits(), up.Bits());
    Floats plain(tokens * rows);
    RunRow(HwyRow(Op::matvec), MatvecOf(gate_weights.view(), x, plain, tokens), 1);
    EXPECT_EQ(plain.Bits(), gate.Bits());
  });
}

// ---- gqa_attention

struct AttentionShape {
  size_t tokens, first_position, heads, group, head_dim;
  size_t positions() const { return first_position + tokens; }
  size_t kv_heads() const { return heads / group; }
  size_t q_stride() const { return heads * head_dim + 3; }
  size_t kv_stride() const { return kv_heads() * head_dim + 5; }
};

struct AttentionInputs {
  AttentionInputs(const AttentionShape& shape, bool half, float q_scale, float k_scale)
      : s(shape),
        q(Normal(s.tokens * s.q_stride(), 24, q_scale)),
        k(Normal(s.positions() * s.kv_stride(), 25)),
        v(Normal(k.size(), 26)) {
    // One channel of every key far out, as the biases of this family make them.
    for (size_t i = 3; i < k.size(); i += s.head_dim) k.data()[i] *= k_scale;
    if (!half) return;
    for (const auto& [from, to] : {std::pair(&k, &k16), std::pair(&v, &v16)})
      for (size_t i = 0; i < from->size(); ++i) {
        to->push_back(FloatToHalf((*from)[i]));
        from->data()[i] = HalfToFloat(to->back());
      }
  }

  template <class T>
  GqaAttentionArgs<T> Args(const T* q_data, const T* k_data, const T* v_data, T* y) const {
    GqaAttentionArgs<T> args = {};
    args.q = q_data;
    args.k = k16.empty() ? k_data : nullptr;
    args.v = k16.empty() ? v_data : nullptr;
    args.k16 = k16.empty() ? nullptr : k16.data();
    args.v16 = k16.empty() ? nullptr : v16.data();
    args.y = y;
    args.tokens = s.tokens;
    args.first_position = s.first_position;
    args.heads = s.heads;
    args.group = s.group;
    args.head_dim = s.head_dim;
    args.q_stride = args.y_stride = s.q_stride();
    args.kv_stride = s.kv_stride();
    return args;
  }
  GqaAttentionArgs<float> Args(Floats& y) const {
    return Args<float>(q.data(), k.data(), v.data(), y.data());
  }

  AttentionShape s;
  Floats q, k, v;
  std::vector<uint16_t> k16, v16;
};

/// The tolerance of every output of one token and head: the dot rule on the scores, carried through
/// softmax and the weighted sum.
std::vector<double> AttentionTolerance(const AttentionInputs& in, size_t t, size_t h) {
  const AttentionShape& s = in.s;
  const size_t n = s.first_position + t + 1, dim = s.head_dim;
  const auto kv = [&](size_t j) { return j * s.kv_stride() + h / s.group * dim; };
  const double root = std::sqrt(static_cast<double>(dim));
  std::vector<double> p(n);
  double worst_score = 0, largest = -INFINITY, total = 0;
  for (size_t j = 0; j < n; ++j) {
    double dot = 0, magnitude = 0;
    for (size_t i = 0; i < dim; ++i) {
      const double product =
          static_cast<double>(in.q[t * s.q_stride() + h * dim + i]) * in.k[kv(j) + i];
      dot += product;
      magnitude += std::abs(product);
    }
    p[j] = dot / root;
    largest = std::max(largest, p[j]);
    worst_score =
        std::max(worst_score,
                 (4 * kU * std::sqrt(ChainLength(dim)) * magnitude + kU * std::abs(dot)) / root);
  }
  for (double& score : p) total += score = std::exp(score - largest);
  const auto nd = static_cast<double>(n);
  std::vector<double> tolerance(dim);
  for (size_t i = 0; i < dim; ++i) {
    double weighted = 0;
    for (size_t j = 0; j < n; ++j) weighted += p[j] / total * std::abs(in.v[kv(j) + i]);
    tolerance[i] = weighted * (2 * worst_score + (nd + 3) * kU + 4 * kU * std::sqrt(nd));
  }
  return tolerance;
}

std::vector<double> AttentionOracle(const AttentionInputs& in) {
  const std::vector<double> q = in.q.Doubles(), k = in.k.Doubles(), v = in.v.Doubles();
  std::vector<double> want(in.q.size(), NAN);
  RunOracle(Op::gqa_attention, in.Args<double>(q.data(), k.data(), v.data(), want.data()));
  return want;
}

void CheckAttention(const AttentionInputs& in, Comparison& comparison) {
  const AttentionShape& s = in.s;
  Floats y(in.q.size());
  HwyRow(Op::gqa_attention).run(std::data({in.Args(y)}));
  const std::vector<double> want = AttentionOracle(in);
  for (size_t t = 0; t < s.tokens; ++t)
    for (size_t h = 0; h < s.heads; ++h) {
      const std::vector<double> tolerance = AttentionTolerance(in, t, h);
      for (size_t i = 0; i < s.head_dim; ++i) {
        const size_t at = t * s.q_stride() + h * s.head_dim + i;
        comparison.Check(y[at], want[at], tolerance[i], at);
      }
    }
  EXPECT_TRUE(y.GuardsIntact());
}

const AttentionShape kAttentionShapes[] = {
    {1, 0, 2, 1, 64},  {1, 299, 12, 6, 128}, {1, 47, 4, 2, 64},
    {1, 48, 4, 2, 64}, {5, 0, 4, 2, 32},     {17, 40, 7, 7, 64},
    {3, 97, 6, 3, 80}, {2, 7, 3, 1, 21},     {1, 30, 34, 17, 128},
};

TEST(HwyF32Attention, PrefillAndDecodeWithBothKvTypes) {
  OnEveryTarget([&] {
    Comparison comparison("gqa_attention");
    for (const AttentionShape& shape : kAttentionShapes)
      for (const bool half : {false, true})
        CheckAttention(AttentionInputs(shape, half, 1, 1), comparison);
  });
}

// Keys of up to 354 and scores of up to 12,000, as layer 0 of the 1.5B model has them.
TEST(HwyF32Attention, ScoresThatReachFar) {
  OnEveryTarget([&] {
    Comparison comparison("gqa_attention");
    for (const AttentionShape& shape : kAttentionShapes)
      for (const bool half : {false, true}) {
        CheckAttention(AttentionInputs(shape, half, 0.01f, 120), comparison);
        CheckAttention(AttentionInputs(shape, half, 100, 120), comparison);
      }
  });
}

TEST(HwyF32Attention, NonFiniteInputs) {
  OnEveryTarget([&] {
    for (const float bad : {NAN, INFINITY, -INFINITY})
      for (int where = 0; where < 3; ++where) {
        AttentionInputs in({2, 70, 4, 2, 64}, false, 1, 1);
        Floats& target = where == 0 ? in.q : where == 1 ? in.k : in.v;
        target.data()[where == 0 ? 70 : 33 * in.s.kv_stride() + 70] = bad;
        Comparison comparison("gqa_attention_non_finite");
        const std::vector<double> want = AttentionOracle(in);
        Floats y(in.q.size());
        HwyRow(Op::gqa_attention).run(std::data({in.Args(y)}));
        for (size_t i = 0; i < want.size(); ++i) comparison.Check(y[i], want[i], 1e-3, i);
      }
  });
}

TEST(HwyF32Attention, BitsDoNotDependOnTheCompany) {
  OnEveryTarget([&] {
    for (const bool half : {false, true}) {
      const AttentionInputs in({9, 291, 12, 6, 64}, half, 1, 1);
      Floats whole(in.q.size());
      RunRow(HwyRow(Op::gqa_attention), in.Args(whole), 1);
      for (const int k : {3, 7}) {
        Floats spread(whole.size()), sliced(whole.size());
        RunRow(HwyRow(Op::gqa_attention), in.Args(spread), k);
        RunSliced(Op::gqa_attention, in.Args(sliced), static_cast<size_t>(k));
        EXPECT_EQ(spread.Bits(), whole.Bits());
        EXPECT_EQ(sliced.Bits(), whole.Bits());
      }
      Floats one_by_one(whole.size());
      for (size_t t = 0; t < in.s.tokens; ++t) {
        GqaAttentionArgs<float> args = in.Args(one_by_one);
        args.q += t * args.q_stride;
        args.y += t * args.y_stride;
        args.first_position += t;
        args.tokens = 1;
        HwyRow(Op::gqa_attention).run(&args);
      }
      EXPECT_EQ(one_by_one.Bits(), whole.Bits());
    }
  });
}

}  // namespace
}  // namespace lab
