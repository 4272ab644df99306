// The float rows that are no sum of products, // on Highway against the oracle, element by element,
// on every target that this machine runs.
#include "tests/hwy_util.h"

namespace lab::hwy_test {
namespace {

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

}  // namespace
}  // namespace lab::hwy_test
