// The float rows of matvec, down_proj and gate_up // on Highway against the oracle, element by
// element, on every target that this machine runs.
#include "tests/hwy_util.h"

namespace lab::hwy_test {
namespace {

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

}  // namespace
}  // namespace lab::hwy_test
