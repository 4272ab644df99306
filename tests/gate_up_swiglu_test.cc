// The fused row is its three steps, bit for bit, whether or not they are kept, on every target.
#include "kernels/gate_up_swiglu.h"

#include "lab/binding.h"
#include "tests/hwy_util.h"
#include "tests/paths.h"

namespace lab {
namespace {

struct Steps {
  std::vector<float> gate, up, silu, y;
  explicit Steps(size_t n) : gate(n), up(n), silu(n), y(n) {}
};

void ExpectSameBits(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0);
}

void Compare(const Case& c, Contract contract, Backend backend) {
  const QuantizedBuffer xq = QuantizeCase(c, contract, c.w);
  const QuantizedBuffer xq_up = QuantizeCase(c, contract, c.w_up);
  const size_t rows = c.w.rows, n = c.tokens * rows;
  const auto args = [&](Steps& s) {
    return GateUpArgs<float>{c.w,           c.w_up,      c.x.data(), xq.view(), xq_up.view(),
                             s.gate.data(), s.up.data(), c.tokens,   rows};
  };
  Steps steps(n);
  FindRow(Op::gate_up, contract, backend)->run(std::data({args(steps)}));
  FindRow(Op::silu, Contract::f32, backend)
      ->run(std::data({SiluArgs<float>{steps.gate.data(), steps.silu.data(), n}}));
  FindRow(Op::swiglu, Contract::f32, backend)
      ->run(std::data({SwigluArgs<float>{steps.silu.data(), steps.up.data(), steps.y.data(), n}}));

  const Row& fused = *FindRow(Op::gate_up_swiglu, contract, backend);
  Steps kept(n), alone(n);
  RunRow(fused, GateUpSwigluArgs<float>{args(kept), kept.silu.data(), kept.y.data()}, 3);
  GateUpArgs<float> without = args(alone);
  without.gate = without.up = nullptr;
  RunRow(fused, GateUpSwigluArgs<float>{without, nullptr, alone.y.data()}, 3);
  for (const auto step : {&Steps::gate, &Steps::up, &Steps::silu, &Steps::y})
    ExpectSameBits(kept.*step, steps.*step);
  ExpectSameBits(alone.y, steps.y);
}

TEST(GateUpSwiglu, HasTheBitsOfItsThreeSteps) {
  size_t compared = 0;
  for (const Case& c : ReadCases(kCasesDir)) {
    if (c.op != Op::gate_up_swiglu) continue;
    SCOPED_TRACE(c.name);
    for (const Contract contract : {Contract::f32, Contract::q8, Contract::q16}) {
      SCOPED_TRACE(NameOf(contract));
      Compare(c, contract, Backend::ref);
      hwy_test::OnEveryTarget([&] { Compare(c, contract, Backend::hwy); });
      ++compared;
    }
  }
  EXPECT_GT(compared, 10u);
}

}  // namespace
}  // namespace lab
