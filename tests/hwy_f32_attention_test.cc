// The float row of gqa_attention // on Highway against the oracle, element by element, on every
// target that this machine runs.
#include "model/kv_cache.h"
#include "tests/hwy_util.h"

namespace lab::hwy_test {
namespace {

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
    args.kv_head_stride = s.head_dim;
    args.key_block = 1;
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

// As a pass keeps keys and values, and as they are captured.
TEST(HwyF32Attention, TheLayoutOfTheCacheChangesNoBit) {
  OnEveryTarget([&] {
    for (const AttentionShape& shape : kAttentionShapes)
      for (const bool half : {false, true}) {
        const AttentionInputs in(shape, half, 1, 1);
        KvCache<float> cache(half ? KvType::f16 : KvType::f32, 1, shape.kv_heads(), shape.head_dim,
                             shape.positions());
        cache.Allocate(false);
        KvStoreArgs<float> store = {
            {}, in.k.data(), in.v.data(), shape.positions(), shape.kv_stride(), 0};
        cache.Bind(0, store);
        StoreInCache(store);
        Floats captured(in.q.size()), cached(in.q.size());
        GqaAttentionArgs<float> args = in.Args(captured);
        HwyRow(Op::gqa_attention).run(&args);
        args.y = cached.data();
        cache.Bind(0, args);
        HwyRow(Op::gqa_attention).run(&args);
        EXPECT_EQ(cached.Bits(), captured.Bits());
      }
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

// What comes of two positions, scored `score` and 0, with the values `value` and 0.
float OfTwoPositions(float score, float value) {
  AttentionInputs in({1, 1, 1, 1, 16}, false, 0, 1);
  std::fill_n(in.k.data(), in.k.size(), 0.0f);
  std::fill_n(in.v.data(), in.v.size(), 0.0f);
  in.q.data()[0] = 4;  // the square root of head_dim
  in.k.data()[0] = score;
  in.v.data()[0] = value;
  Floats y(in.q.size());
  HwyRow(Op::gqa_attention).run(std::data({in.Args(y)}));
  return y[0];
}

// A weight that is no normal float is zero: its products can be slow.
TEST(HwyF32Attention, WeightsAreNormalOrZero) {
  OnEveryTarget([&] {
    const double want = 1e38 * std::exp(-86.0);
    EXPECT_NEAR(OfTwoPositions(-86, 1e38f), want, 1e-4 * want);
    EXPECT_EQ(OfTwoPositions(-88, 1e38f), 0);
  });
}

TEST(HwyF32Attention, WeightsAreExponentials) {
  OnEveryTarget([&] {
    double worst = 0;
    for (float x = 0; x < 87; x += 0.0131f) {
      const double want = 1 / (1 + std::exp(static_cast<double>(x)));
      worst = std::max(worst, std::abs(OfTwoPositions(-x, 1) / want - 1));
    }
    // In ulp: 1 of exp, 1/2 each of the sum and of the quotient.
    EXPECT_LT(worst, 1.5 * FLT_EPSILON);
  });
}

TEST(HwyF32Attention, BitsDoNotDependOnTheCompany) {
  OnEveryTarget([&] {
    for (const auto& [half, tokens] : {std::pair<bool, size_t>{false, 9}, {true, 9}, {true, 70}}) {
      const AttentionInputs in({tokens, 291, 12, 6, 64}, half, 1, 1);
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
        const GqaAttentionArgs<float> args = in.Args(one_by_one).SliceTokens(t, t + 1);
        HwyRow(Op::gqa_attention).run(&args);
      }
      EXPECT_EQ(one_by_one.Bits(), whole.Bits());
    }
  });
}

}  // namespace
}  // namespace lab::hwy_test
