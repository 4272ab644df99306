// The integer rows on every target that this machine runs: forced, one after the other.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/half.h"
#include "kernels/targets-inl.h"
#include "lab/registry.h"
#include "reference/dequant_ref.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/hwy_int_test.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
#include "kernels/int8_dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

// out[0..3][i / 4]: what AddQuads, its portable form, AddPairs of PairDot and its portable form add
// to 7. Returns how many bytes are in a vector, 0 if there are none.
size_t Quads(const uint8_t* u, const int8_t* x, const int16_t* scale, size_t n,
             int32_t* const* out) {
#if HWY_TARGET == HWY_SCALAR
  (void)u, (void)x, (void)scale, (void)n, (void)out;
  return 0;
#else
  const hn::CappedTag<uint8_t, 32> d8;
  const hn::Repartition<int8_t, decltype(d8)> di8;
  const hn::Repartition<int16_t, decltype(d8)> d16;
  const hn::Repartition<int32_t, decltype(d8)> d32;
  const auto seven = hn::Set(d32, 7);
  for (size_t i = 0; i < n; i += hn::Lanes(d8)) {
    const auto vu = hn::LoadU(d8, u + i);
    const auto vx = hn::LoadU(di8, x + i);
    const auto vs = hn::LoadU(d16, scale + i / 2);
    const auto pairs = PairDotPortable(vu, vx);
    hn::StoreU(AddQuads(seven, vu, vx), d32, out[0] + i / 4);
    hn::StoreU(AddPairsPortable(seven, pairs, hn::Set(d16, 1)), d32, out[1] + i / 4);
    hn::StoreU(AddPairs(seven, PairDot(vu, vx), vs), d32, out[2] + i / 4);
    hn::StoreU(AddPairsPortable(seven, pairs, vs), d32, out[3] + i / 4);
  }
  return hn::Lanes(d8);
#endif
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(Quads);

namespace {

/// Calls f(target's name) with every target in turn.
template <class F>
void OnEveryTarget(F f) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    f(hwy::TargetName(target));
    if (testing::Test::HasFatalFailure()) break;
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

TEST(HwyIntDot, EveryFormHasTheExactSums) {
  constexpr size_t kCount = 4096;
  std::mt19937 rng(1);
  std::vector<uint8_t> u(kCount);
  std::vector<int8_t> x(kCount);
  std::vector<int16_t> scale(kCount / 2);
  for (size_t i = 0; i < kCount; ++i) {
    u[i] = static_cast<uint8_t>(rng() & 127);
    x[i] = static_cast<int8_t>(rng());
    scale[i / 2] = static_cast<int16_t>(static_cast<int8_t>(rng() >> 8));
    if (i < 256) u[i] = 127, x[i] = i < 128 ? -128 : 127, scale[i / 2] = i % 128 < 64 ? -128 : 127;
  }
  for (size_t i = 0; i < scale.size(); ++i) scale[i] = scale[i / 2 * 2];  // lanes of a pair agree
  OnEveryTarget([&](const char* target) {
    std::vector<int32_t> out[4];
    for (auto& o : out) o.assign(kCount / 4, -1);
    int32_t* const pointers[4] = {out[0].data(), out[1].data(), out[2].data(), out[3].data()};
    if (HWY_DYNAMIC_DISPATCH(Quads)(u.data(), x.data(), scale.data(), kCount, pointers) == 0)
      return;
    for (size_t i = 0; i < kCount / 4; ++i) {
      int dot = 0;
      for (size_t k = 0; k < 4; ++k) dot += u[4 * i + k] * x[4 * i + k];
      for (int form = 0; form < 4; ++form) {
        ASSERT_EQ(out[form][i], 7 + (form < 2 ? dot : dot * scale[2 * i]))
            << target << " form " << form << " lane " << i;
      }
    }
  });
}

constexpr int8_t kGuard = 85;
constexpr size_t kGuards = 64;

/// Integers with guards behind them, off any alignment.
struct Quantized {
  std::vector<int8_t> hi, lo;
  std::vector<float> scale;
  std::vector<int32_t> sums;
  QuantizedView view;

  Quantized(Contract contract, Backend backend, const float* x, size_t tokens, size_t n,
            size_t block)
      : hi(tokens * n + 1 + kGuards, kGuard),
        lo(hi),
        scale(tokens * n / block + kGuards, kGuard),
        sums(tokens * n / 16 + kGuards, kGuard) {
    const bool two = contract == Contract::q16;
    view = {hi.data() + 1, two ? lo.data() + 1 : nullptr, scale.data(), sums.data(), n, block};
    const QuantizeArgs<float> a = {
        x, hi.data() + 1, two ? lo.data() + 1 : nullptr, scale.data(), sums.data(), tokens,
        n, block};
    FindRow(Op::quantize, contract, backend)->run(&a);
  }
};

template <class T>
bool SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// One block of every kind that the contract names, then random ones.
std::vector<float> HardActivations(size_t n, size_t block, std::mt19937& rng) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) v = normal(rng);
  const auto at = [&](size_t b) { return x.begin() + static_cast<ptrdiff_t>(b * block); };
  std::fill(at(0), at(1), 0.0f);
  for (size_t i = 0; i < block; ++i) {
    x[1 * block + i] = static_cast<float>(i % 254) / 2 - 63;  // ties
    x[2 * block + i] = (static_cast<float>(i) - 16) * 0x1p-149f;
    x[3 * block + i] *= 1e-39f;
    x[4 * block + i] *= 0x1p-125f;
    x[8 * block + i] = -std::abs(x[8 * block + i]) * 1e37f;
    x[9 * block + i] = i % 2 ? 3.0f : -3.0f;
    x[11 * block + i] = static_cast<float>(i % 200) + 0.5f;
  }
  x[1 * block] = 127;
  x[11 * block] = 32512;
  x[5 * block + 7] = std::numeric_limits<float>::quiet_NaN();
  x[6 * block + block - 1] = kInf;
  x[7 * block] = -kInf;
  x[10 * block + 3] = 2000;
  std::fill(at(n / block - 1), x.end(), 0.0f);  // nothing behind it hides a group too many
  return x;
}

TEST(HwyIntQuantize, HasTheBitsOfTheReference) {
  std::mt19937 rng(2);
  for (const size_t block : {32u, 256u}) {
    for (const size_t tokens : {1u, 3u}) {
      const size_t n = 32 * block;
      std::vector<float> x = HardActivations(tokens * n, block, rng);
      x.insert(x.begin(), 0.0f);  // unaligned
      for (const Contract contract : {Contract::q8, Contract::q16}) {
        const Quantized ref(contract, Backend::ref, x.data() + 1, tokens, n, block);
        OnEveryTarget([&](const char* target) {
          const Quantized hwy(contract, Backend::hwy, x.data() + 1, tokens, n, block);
          EXPECT_TRUE(SameBits(hwy.hi, ref.hi) && SameBits(hwy.lo, ref.lo) &&
                      SameBits(hwy.scale, ref.scale) && SameBits(hwy.sums, ref.sums))
              << target << " " << NameOf(contract) << " block " << block;
        });
      }
    }
  }
}

// ---- Matrices ----

enum class Fill { kRandom, kLargest, kExact };

constexpr BlockType kTypes[] = {BlockType::Q4_0, BlockType::Q5_0, BlockType::Q8_0,
                                BlockType::Q4_K, BlockType::Q5_K, BlockType::Q6_K};

void SetHalf(uint8_t* at, float value) {
  const uint16_t half = FloatToHalf(value);
  std::memcpy(at, &half, sizeof half);
}

/// Where a block keeps d, dmin (or npos).
std::pair<size_t, size_t> FactorOffsets(BlockType type) {
  if (type == BlockType::Q6_K) return {offsetof(BlockQ6_K, d), std::string::npos};
  const bool mins = type == BlockType::Q4_K || type == BlockType::Q5_K;
  return {0, mins ? 2 : std::string::npos};
}

std::vector<uint8_t> MakeWeights(BlockType type, size_t rows, size_t cols, Fill fill,
                                 std::mt19937& rng) {
  const BlockTypeInfo& info = InfoOf(type);
  std::vector<uint8_t> bytes(rows * (cols / info.elements) * info.bytes);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(fill == Fill::kLargest ? 0xff : rng());
  const auto [d_at, dmin_at] = FactorOffsets(type);
  std::normal_distribution<float> normal(0, 0.01f);
  for (size_t at = 0; at < bytes.size(); at += info.bytes) {
    const bool random = fill == Fill::kRandom;
    SetHalf(&bytes[at + d_at], random ? normal(rng) : 0.5f);
    if (dmin_at != std::string::npos)
      SetHalf(&bytes[at + dmin_at], random                 ? std::abs(normal(rng))
                                    : fill == Fill::kExact ? 0.25f
                                                           : 0.0f);
    if (fill == Fill::kLargest && type == BlockType::Q6_K)
      std::fill_n(&bytes[at + offsetof(BlockQ6_K, scales)], 16, uint8_t{0x80});
    if (fill == Fill::kLargest && type == BlockType::Q8_0)
      std::fill_n(&bytes[at + offsetof(BlockQ8_0, qs)], 32, uint8_t{0x80});
  }
  return bytes;
}

std::vector<float> MakeActivations(size_t tokens, size_t cols, Fill fill, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  std::vector<float> x(tokens * cols);
  for (size_t i = 0; i < x.size(); ++i) {
    if (fill == Fill::kRandom) x[i] = normal(rng) * (i % cols == 5 ? 2000.0f : 1.0f);
    // Multiples of 2^-8 up to 1, which the integers hold exactly together with the block's largest.
    if (fill == Fill::kExact) x[i] = static_cast<float>(static_cast<int>(rng() % 15) - 7);
    if (fill == Fill::kLargest) x[i] = i / cols % 2 ? -1.0f : 1.0f;
  }
  return x;
}

/// Weights and the integers of their activations.
struct Problem {
  std::vector<uint8_t> bytes;
  WeightView w;
  size_t tokens;
  std::vector<float> x, bias;
  std::vector<int8_t> hi, lo;
  std::vector<float> scale;
  std::vector<int32_t> sums;
  QuantizedView xq;

  Problem(BlockType type, Contract contract, size_t rows, size_t cols, size_t tokens_, Fill fill,
          unsigned seed)
      : tokens(tokens_) {
    std::mt19937 rng(seed);
    bytes = MakeWeights(type, rows, cols, fill, rng);
    w = {type, bytes.data(), rows, cols};
    x = MakeActivations(tokens, cols, fill, rng);
    bias.resize(rows);
    for (float& b : bias) b = fill == Fill::kExact ? static_cast<float>(rng() % 9) : 0.3f;
    const size_t block = ActivationBlock(type);
    hi.resize(tokens * cols), lo.resize(tokens * cols);
    scale.resize(tokens * cols / block), sums.resize(tokens * cols / 16);
    const bool two = contract == Contract::q16;
    const QuantizeArgs<float> a = {x.data(),     hi.data(),   two ? lo.data() : nullptr,
                                   scale.data(), sums.data(), tokens,
                                   cols,         block};
    FindRow(Op::quantize, contract, Backend::ref)->run(&a);
    xq = {hi.data(), two ? lo.data() : nullptr, scale.data(), sums.data(), cols, block};
    if (fill == Fill::kExact) MakeExact(two);
    if (fill == Fill::kLargest && two) MakeLowest();
  }

 private:
  // Small integers with a scale of a quarter instead of the rounded ones.
  void MakeExact(bool two) {
    for (size_t i = 0; i < x.size(); ++i) {
      const int q = static_cast<int>(x[i]) * (two ? 61 : 1);
      hi[i] = static_cast<int8_t>(two ? (q + 128) >> 8 : q);
      lo[i] = static_cast<int8_t>(q - 256 * hi[i]);
    }
    for (float& s : scale) s = 0.25f;
    for (size_t s = 0; s < sums.size(); ++s) {
      sums[s] = 0;
      for (size_t i = 0; i < 16; ++i) sums[s] += xq.Integer(16 * s + i);
    }
  }
  // -32384 = 256 * -126 - 128: both planes as low as they go together.
  void MakeLowest() {
    for (size_t i = 0; i < x.size(); ++i)
      if (x[i] < 0) hi[i] = -126, lo[i] = -128;
    for (size_t s = 0; s < sums.size(); ++s) {
      sums[s] = 0;
      for (size_t i = 0; i < 16; ++i) sums[s] += xq.Integer(16 * s + i);
    }
  }
};

struct Outputs {
  std::vector<float> y, before_bias;
};

constexpr size_t kPad = 3;  // values between the tokens' outputs

Outputs RunMatvec(const Problem& p, Contract contract, int slices) {
  const size_t stride = p.w.rows + kPad;
  Outputs out = {std::vector<float>(p.tokens * stride, NAN), {}};
  out.before_bias = out.y;
  const MatvecArgs<float> a = {p.w,          p.bias.data(),          p.x.data(), p.xq,
                               out.y.data(), out.before_bias.data(), p.tokens,   stride};
  const Row* row = FindRow(Op::matvec, contract, Backend::hwy);
  const size_t items = a.Items();
  for (int s = 0; s < slices; ++s) {
    const MatvecArgs<float> slice = a.Slice(items * s / slices, items * (s + 1) / slices);
    if (slice.Items()) row->run(&slice);
  }
  return out;
}

struct Judged {
  double worst = 0;  ///< error / tolerance
  size_t compared = 0;
};

// |d sc q| + |dmin m| of every weight: the weight's own magnitude where there is no minimum.
std::vector<double> UnsummedMagnitudes(const WeightView& w, size_t r) {
  std::vector<float> value(w.cols), shifted(w.cols);
  DequantRow(w.type, w.row(r), w.cols, value.data());
  std::vector<double> magnitude(w.cols);
  const bool mins = FactorOffsets(w.type).second != std::string::npos;
  std::vector<uint8_t> copy(w.row(r), w.row(r) + w.row_bytes());
  if (mins)  // dmin 0 leaves d sc q
    for (size_t at = 2; at < copy.size(); at += InfoOf(w.type).bytes) SetHalf(&copy[at], 0);
  DequantRow(w.type, copy.data(), w.cols, shifted.data());
  for (size_t c = 0; c < w.cols; ++c)
    magnitude[c] = std::abs(double{shifted[c]}) + std::abs(double{shifted[c]} - value[c]);
  return magnitude;
}

// y[t * stride + r] against double arithmetic from the same integers.
void Judge(const WeightView& w, const QuantizedView& xq, size_t tokens, const std::vector<float>& y,
           size_t stride, Judged& judged, const std::string& what) {
  const double u = 0x1p-24;
  const double d = static_cast<double>(w.cols) / static_cast<double>(InfoOf(w.type).elements) + 3;
  std::vector<float> row(w.cols);
  for (size_t r = 0; r < w.rows; ++r) {
    DequantRow(w.type, w.row(r), w.cols, row.data());
    const std::vector<double> unsummed = UnsummedMagnitudes(w, r);
    for (size_t t = 0; t < tokens; ++t) {
      double sum = 0, products = 0, parts = 0;
      for (size_t c = 0; c < w.cols; ++c) {
        const size_t i = t * w.cols + c;
        const double x = double{xq.scale[i / xq.block]} * xq.Integer(i);
        sum += row[c] * x;
        products += std::abs(row[c] * x);
        parts += unsummed[c] * std::abs(x);
      }
      const double error = std::abs(y[t * stride + r] - sum);
      const double tolerance = 4 * u * (std::sqrt(d) * products + parts) + u * std::abs(sum);
      if (!(error <= tolerance))
        FAIL() << what << " row " << r << " token " << t << ": " << y[t * stride + r] << " not "
               << sum << ", tolerance " << tolerance;
      if (tolerance > 0) judged.worst = std::max(judged.worst, error / tolerance);
      ++judged.compared;
    }
  }
}

constexpr Contract kContracts[] = {Contract::q8, Contract::q16};

/// f(type, contract, what) for every target, type and contract.
template <class F>
void OnEverything(F f) {
  OnEveryTarget([&](const char* target) {
    for (const BlockType type : kTypes)
      for (const Contract contract : kContracts)
        if (!testing::Test::HasFatalFailure())
          f(type, contract, fmt::format("{} {} {}", target, InfoOf(type).name, NameOf(contract)));
  });
}

TEST(HwyIntMatvec, StaysWithinTheTolerance) {
  Judged judged;
  OnEverything([&](BlockType type, Contract contract, const std::string& what) {
    const size_t one = InfoOf(type).elements;
    for (const size_t cols : {one, 5 * one, size_t{1536}}) {
      const Problem p(type, contract, 13, cols, 5, Fill::kRandom, 3);
      Judge(p.w, p.xq, p.tokens, RunMatvec(p, contract, 1).before_bias, p.w.rows + kPad, judged,
            what);
    }
  });
  EXPECT_GT(judged.compared, 0u);
  RecordProperty("worst", fmt::format("{:.3f}", judged.worst));
  fmt::print("worst error / tolerance {:.3f} of {} outputs\n", judged.worst, judged.compared);
}

TEST(HwyIntMatvec, LargestValuesOverflowNothing) {
  Judged judged;
  OnEverything([&](BlockType type, Contract contract, const std::string& what) {
    const Problem p(type, contract, 3, 1536, 6, Fill::kLargest, 4);
    Judge(p.w, p.xq, p.tokens, RunMatvec(p, contract, 1).before_bias, p.w.rows + kPad, judged,
          what);
  });
  EXPECT_GT(judged.compared, 0u);
}

TEST(HwyIntMatvec, ExactIntegersHaveExactSums) {
  OnEverything([&](BlockType type, Contract contract, const std::string& what) {
    const Problem p(type, contract, 7, 512, 5, Fill::kExact, 5);
    const Outputs out = RunMatvec(p, contract, 1);
    std::vector<float> row(p.w.cols);
    for (size_t r = 0; r < p.w.rows; ++r) {
      DequantRow(type, p.w.row(r), p.w.cols, row.data());
      for (size_t t = 0; t < p.tokens; ++t) {
        double sum = 0;
        for (size_t c = 0; c < p.w.cols; ++c) sum += row[c] * 0.25 * p.xq.Integer(t * p.w.cols + c);
        const size_t at = t * (p.w.rows + kPad) + r;
        ASSERT_EQ(out.before_bias[at], static_cast<float>(sum)) << what << " row " << r;
        ASSERT_EQ(out.y[at], static_cast<float>(sum) + p.bias[r]) << what << " row " << r;
      }
    }
  });
}

TEST(HwyIntMatvec, SlicesAndBatchesChangeNoBit) {
  OnEverything([&](BlockType type, Contract contract, const std::string& what) {
    for (const size_t tokens : {1u, 2u, 3u, 5u, 17u}) {
      const Problem p(type, contract, 11, 768, tokens, Fill::kRandom, 6);
      const Outputs whole = RunMatvec(p, contract, 1);
      for (const int slices : {3, 7}) {
        const Outputs sliced = RunMatvec(p, contract, slices);
        ASSERT_TRUE(SameBits(sliced.y, whole.y) && SameBits(sliced.before_bias, whole.before_bias))
            << what << " " << tokens << " tokens, " << slices << " slices";
      }
      const size_t stride = p.w.rows + kPad;
      for (size_t t = 0; t < tokens; ++t) {
        std::vector<float> y(stride, NAN);
        QuantizedView xq = p.xq;
        xq.hi += t * xq.n, xq.scale += t * xq.n / xq.block, xq.sums += t * xq.n / 16;
        if (xq.lo) xq.lo += t * xq.n;
        const MatvecArgs<float> a = {p.w, p.bias.data(), nullptr, xq, y.data(), nullptr, 1, stride};
        FindRow(Op::down_proj, contract, Backend::hwy)->run(&a);
        ASSERT_EQ(std::memcmp(y.data(), &whole.y[t * stride], stride * sizeof(float)), 0)
            << what << " token " << t << " of " << tokens;
      }
    }
  });
}

TEST(HwyIntGateUp, HasTheBitsOfTwoMatvecs) {
  OnEverything([&](BlockType type, Contract contract, const std::string& what) {
    for (const size_t tokens : {1u, 5u}) {
      Problem gate(type, contract, 9, 768, tokens, Fill::kRandom, 7);
      const Problem up(type, contract, 9, 768, tokens, Fill::kRandom, 8);
      // The other matrix has another type in half of the cases, and then its own integers.
      const Problem other(BlockType::Q6_K, contract, 9, 768, tokens, Fill::kRandom, 9);
      for (const Problem* second : {&up, &other}) {
        Problem twin = *second;
        twin.w.data = twin.bytes.data();
        if (second == &up || twin.xq.block == gate.xq.block) twin.xq = gate.xq;
        const size_t stride = 9 + kPad;
        std::vector<float> g(tokens * stride, NAN), u(g);
        const GateUpArgs<float> a = {gate.w,   twin.w,   gate.x.data(), gate.xq, twin.xq,
                                     g.data(), u.data(), tokens,        stride};
        FindRow(Op::gate_up, contract, Backend::hwy)->run(&a);
        ASSERT_TRUE(SameBits(g, RunMatvec(gate, contract, 1).before_bias)) << what;
        ASSERT_TRUE(SameBits(u, RunMatvec(twin, contract, 1).before_bias)) << what;
      }
    }
  });
}

TEST(HwyIntMatvec, ABlockThatIsNotFiniteSpoilsItsTokenAlone) {
  OnEverything([&](BlockType type, Contract contract, const std::string& what) {
    Problem p(type, contract, 3, 512, 5, Fill::kRandom, 10);
    p.scale[2 * p.xq.n / p.xq.block] = NAN;
    const Outputs out = RunMatvec(p, contract, 1);
    for (size_t t = 0; t < p.tokens; ++t)
      for (size_t r = 0; r < p.w.rows; ++r)
        ASSERT_EQ(std::isnan(out.y[t * (p.w.rows + kPad) + r]), t == 2) << what;
  });
}

}  // namespace
}  // namespace lab
#endif  // HWY_ONCE
