// gqa_attention on the SIMT layer where positions make several spans: the bits do not depend on who
// sums them up.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "kernels/cuda.cuh"
#include "lab/judge.h"
#include "lab/random.h"
#include "lab/registry.h"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

struct Shape {
  size_t tokens, first_position, heads, kv_heads, head_dim;
};

// Spans that are full, and of one position; heads of a KV head that fill a block, that do not, and
// that need two; head sizes that fill the threads of a block, and that do not.
constexpr Shape kShapes[] = {{1, 127, 6, 2, 128}, {1, 128, 6, 2, 128}, {1, 700, 8, 1, 64},
                             {3, 254, 9, 1, 80},  {1, 300, 3, 3, 256}, {2, 255, 17, 1, 21},
                             {40, 110, 7, 1, 64}};

Case MakeCase(const Shape& s) {
  Random random(s.heads + s.first_position);
  const auto uniform = [&](size_t n, float limit) {
    std::vector<float> values(n);
    for (float& v : values) v = limit * random.Signed();
    return values;
  };
  const size_t kv = (s.first_position + s.tokens) * s.kv_heads * s.head_dim;
  Case c;
  c.op = Op::gqa_attention;
  c.tokens = s.tokens;
  c.x = uniform(s.tokens * s.heads * s.head_dim, 2);
  c.k = uniform(kv, 2), c.v = uniform(kv, 1);
  c.first_position = s.first_position;
  c.heads = s.heads, c.kv_heads = s.kv_heads, c.head_dim = s.head_dim;
  return c;
}

std::string NameOf(const Shape& s) {
  return fmt::format("{} tokens after {}, {} heads of {}, {} KV heads", s.tokens, s.first_position,
                     s.heads, s.head_dim, s.kv_heads);
}

const Row* RowOnHost() {
  return FindRow(Op::gqa_attention, Contract::f32, Backend::cuda_host);
}

TEST(AttentionSpans, ArePutTogetherRight) {
  for (const Shape& shape : kShapes)
    for (const bool half_kv : {false, true}) {
      const Case c = MakeCase(shape);
      const Verdict v =
          JudgeRow(c, {RowOnHost()}, ExpectedOf(c, Contract::f32, half_kv), half_kv, 1, 3, 32);
      EXPECT_EQ(v.status, Status::pass) << NameOf(shape) << ": " << v.why << " at " << v.output;
    }
}

using Args = GqaAttentionArgs<float>;

// What the row makes of change(arguments of the case). NaN where it writes nothing.
std::vector<float> OutputsWith(const Case& c, bool half_kv,
                               const std::function<Args(const Args&)>& change) {
  Binding<float> binding(c, Contract::f32, half_kv);
  binding.With([&](const auto& args) {
    if constexpr (std::is_same_v<std::decay_t<decltype(args)>, Args>) {
      const Args changed = change(args);
      RowOnHost()->run(&changed);
    }
    return true;
  });
  const auto& y = binding.outputs()[0];
  return {y.data(), y.data() + c.tokens * y.n()};
}
std::vector<float> Outputs(const Case& c, bool half_kv) {
  return OutputsWith(c, half_kv, std::identity());
}

// The last token of several goes through one block, alone it has a block for each span.
TEST(AttentionSpans, OneTokenAloneHasTheBitsOfTheLastOfSeveral) {
  for (const Shape& shape : kShapes)
    for (const bool half_kv : {false, true}) {
      const size_t row = shape.heads * shape.head_dim;
      Case several = MakeCase(
          {shape.tokens + 1, shape.first_position, shape.heads, shape.kv_heads, shape.head_dim});
      Case alone = several;
      alone.tokens = 1;
      alone.first_position = shape.first_position + shape.tokens;
      alone.x.erase(alone.x.begin(), alone.x.end() - static_cast<ptrdiff_t>(row));
      const std::vector<float> all = Outputs(several, half_kv);
      EXPECT_EQ(Outputs(alone, half_kv),
                std::vector<float>(all.end() - static_cast<ptrdiff_t>(row), all.end()))
          << NameOf(shape);
    }
}

// Replays see fewer positions than there is room for: blocks of later spans have nothing to do.
TEST(AttentionSpans, RoomForMorePositionsChangesNoBit) {
  const Case c = MakeCase({1, 200, 6, 2, 64});
  const std::vector<float> want = Outputs(c, false);
  for (const size_t most : {size_t{256}, size_t{257}, size_t{5000}}) {
    const auto with_room = [&](Args args) {
      args.most_positions = most;
      EXPECT_EQ(args.Spans(), (most + 127) / 128);
      return args;
    };
    EXPECT_EQ(OutputsWith(c, false, with_room), want) << most;
  }
}

// Heads of one KV head that are in two blocks of threads, and heads of two KV heads.
TEST(AttentionSpans, ASliceOfHeadsIsThatOfAll) {
  for (const Shape& shape : {Shape{1, 140, 17, 1, 32}, {2, 20, 17, 1, 32}, {1, 9, 18, 2, 32}}) {
    const Case c = MakeCase(shape);
    const std::vector<float> all = Outputs(c, false);
    for (const auto& [begin, end] : {std::pair<size_t, size_t>(3, 14), {9, 12}, {0, 1}, {12, 17}}) {
      const std::vector<float> slice = OutputsWith(
          c, false, [b = begin, e = end](const Args& args) { return args.Slice(b, e); });
      for (size_t i = 0; i < all.size(); ++i) {
        const size_t head = i % c.n() / c.head_dim;
        if (head >= begin && head < end)
          EXPECT_EQ(slice[i], all[i]) << begin << " to " << end << ", head " << head;
        else
          EXPECT_TRUE(std::isnan(slice[i])) << begin << " to " << end << ", head " << head;
      }
    }
  }
}

}  // namespace
}  // namespace lab::LAB_CUDA_NAMESPACE
