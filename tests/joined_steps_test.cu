// Which steps share a launch on a device and which do not, on buffers that a pass keeps there.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <vector>

#include "kernels/device_pass.h"
#include "kernels/on_device.cuh"

namespace lab::LAB_CUDA_NAMESPACE {

std::unique_ptr<DevicePass> MakeDevicePass();

namespace {

constexpr size_t kCols = 64, kRows = 32;

// The buffers of a test, their twins, and what the steps on the twins leave there.
class JoinedSteps : public testing::Test {
 protected:
  // Values that differ from buffer to buffer.
  std::vector<float>& Floats(size_t n) {
    std::vector<float>& v = floats_.emplace_back(n);
    for (size_t i = 0; i < n; ++i) v[i] = static_cast<float>((i * 7 + floats_.size() * 3) % 19) - 9;
    pass_->KeepBuffer(v.data(), n * sizeof(float));
    initial_.push_back(v);
    return v;
  }
  // Q8_0: scale 1, then quants.
  WeightView Weights(BlockType type = BlockType::Q8_0) {
    WeightView w = {type, nullptr, kRows, kCols, nullptr};
    std::vector<uint8_t>& bytes = bytes_.emplace_back(w.bytes(), uint8_t{0});
    for (size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<uint8_t>(i % 34 == 0 ? 0 : i % 34 == 1 ? 0x3c : i % 11);
    w.data = bytes.data();
    pass_->KeepWeights(w);
    return w;
  }
  MatvecArgs<float> Matvec(const WeightView& w, std::vector<float>& x, std::vector<float>& y) {
    return {w, nullptr, x.data(), {}, y.data(), nullptr, x.size() / kCols, kRows};
  }
  QuantizeArgs<float> Quantize(std::vector<float>& x, QuantizedBuffer& to) {
    const QuantizeArgs<float> a = to.Prepare(x.data(), x.size() / kCols, kCols, 32, false);
    pass_->KeepBuffer(a.hi, x.size());
    pass_->KeepBuffer(a.scale, x.size() / 32 * sizeof(float));
    pass_->KeepBuffer(a.sums, x.size() / 16 * sizeof(int32_t));
    return a;
  }

  // Kernels that the steps take. Every buffer of floats holds after them what the steps make of it
  // one by one.
  template <class... Steps>
  size_t Kernels(const Steps&... steps) {
    pass_->Place();
    const auto after = [&](const auto& run) {
      for (size_t i = 0; i < floats_.size(); ++i) {
        std::ranges::copy(initial_[i], floats_[i].begin());
        pass_->Upload(floats_[i].data(), floats_[i].size() * sizeof(float));
      }
      run();
      for (std::vector<float>& v : floats_) pass_->Fetch(v.data(), v.size() * sizeof(float));
      return floats_;
    };
    const auto alone = after([&] { ((RunOnTwins(steps), pass_->Wait()), ...); });
    size_t kernels = 0;
    const auto together = after([&] {
      const size_t before = GridsRun();
      (RunOnTwins(steps), ...);
      pass_->Wait();
      kernels = GridsRun() - before;
    });
    EXPECT_EQ(alone, together);
    EXPECT_NE(alone, initial_);
    return kernels;
  }

  std::unique_ptr<DevicePass> pass_ = MakeDevicePass();

 private:
  static void RunOnTwins(const RmsNormArgs<float>& a) { RunOnDevice(a, LaunchRmsNorm); }
  static void RunOnTwins(const QuantizeArgs<float>& a) { RunOnDevice(a, LaunchQuantize); }
  static void RunOnTwins(const MatvecArgs<float>& a) { RunOnDevice(a, LaunchMatvec); }
  static void RunOnTwins(const ResidualAddArgs<float>& a) { RunOnDevice(a, LaunchResidualAdd); }
  static void RunOnTwins(const RopeArgs<float>& a) { RunOnDevice(a, LaunchRope); }
  static void RunOnTwins(const KvStoreArgs<float>& a) { RunOnDevice(a, LaunchKvStore); }

  std::deque<std::vector<float>> floats_, initial_;
  std::deque<std::vector<uint8_t>> bytes_;
};

TEST_F(JoinedSteps, ANormAndItsIntegers) {
  auto &x = Floats(2 * kCols), &weight = Floats(kCols), &y = Floats(2 * kCols),
       &other = Floats(2 * kCols);
  QuantizedBuffer of_y, of_other;
  const RmsNormArgs<float> norm = {x.data(), weight.data(), y.data(), 2, kCols, 1e-6f};
  const QuantizeArgs<float> integers = Quantize(y, of_y), apart = Quantize(other, of_other);
  EXPECT_EQ(Kernels(norm, integers), 1u);
  EXPECT_EQ(Kernels(norm, apart), 2u);
  EXPECT_EQ(Kernels(norm, norm, integers, integers), 3u);
  QuantizeArgs<float> fewer = integers;
  fewer.tokens = 1;
  EXPECT_EQ(Kernels(norm, fewer), 2u);
}

TEST_F(JoinedSteps, ProjectionsOfOneToken) {
  auto &x = Floats(kCols), &other = Floats(kCols), &y = Floats(4 * kRows);
  const WeightView w = Weights(), v = Weights();
  MatvecArgs<float> a = Matvec(w, x, y), b = Matvec(v, x, y), c = Matvec(w, x, y), d = c;
  b.y += kRows;
  c.y += 2 * kRows;
  d.y += 3 * kRows;
  EXPECT_EQ(Kernels(a, b), 1u);
  EXPECT_EQ(Kernels(a, b, c), 1u);
  EXPECT_EQ(Kernels(a, b, c, d), 2u);
  MatvecArgs<float> of_other = b, over_a = b;
  of_other.x = other.data();
  over_a.y = a.y + kRows - 1;
  EXPECT_EQ(Kernels(a, of_other), 2u);
  EXPECT_EQ(Kernels(a, over_a), 2u);

  QuantizedBuffer integers;
  const QuantizeArgs<float> quantize = Quantize(x, integers);
  MatvecArgs<float> rounded = a, rounded_too = b;
  rounded.xq = rounded_too.xq = integers.view();
  EXPECT_EQ(Kernels(quantize, rounded, rounded_too), 2u);
  EXPECT_EQ(Kernels(quantize, rounded, b), 3u);
}

TEST_F(JoinedSteps, NoProjectionsOfTwoTokensOrFloatWeights) {
  auto &x = Floats(2 * kCols), &y = Floats(4 * kRows);
  const WeightView w = Weights(), floats = Weights(BlockType::F16);
  MatvecArgs<float> a = Matvec(w, x, y), b = a;
  b.y += 2 * kRows;
  EXPECT_EQ(Kernels(a, b), 2u);
  a.tokens = b.tokens = 1;
  EXPECT_EQ(Kernels(a, b), 1u);
  b.w = floats;
  EXPECT_EQ(Kernels(a, b), 2u);
  EXPECT_EQ(Kernels(b, a), 2u);
}

TEST_F(JoinedSteps, AMatvecAndItsResidual) {
  auto &x = Floats(kCols), &y = Floats(2 * kRows), &residual = Floats(kRows);
  auto& bias = Floats(kRows);
  const WeightView w = Weights();
  MatvecArgs<float> m = Matvec(w, x, y);
  m.bias = bias.data();
  ResidualAddArgs<float> sum = {residual.data(), y.data(), residual.data(), kRows};
  EXPECT_EQ(Kernels(m, sum), 1u);
  EXPECT_EQ(Kernels(m, sum, sum), 2u);
  MatvecArgs<float> behind = m;
  behind.y += kRows;
  EXPECT_EQ(Kernels(behind, sum), 2u);
  EXPECT_EQ(Kernels(behind, m, sum), 2u);  // the two matvecs
  ResidualAddArgs<float> over_x = sum;
  over_x.y = x.data() + 1;
  EXPECT_EQ(Kernels(m, over_x), 2u);
  sum.n = kRows - 1;
  EXPECT_EQ(Kernels(m, sum), 2u);
}

TEST_F(JoinedSteps, RopeAndTheCache) {
  constexpr size_t kHeadDim = 8, kHeads = 4, kKvHeads = 2,
                   kStride = (kHeads + 2 * kKvHeads) * kHeadDim;
  constexpr size_t kTokens = 3, kPositions = 5;
  auto &qkv = Floats(kTokens * kStride), &cos = Floats(kTokens * kHeadDim / 2);
  auto& sin = Floats(kTokens * kHeadDim / 2);
  auto &keys = Floats(kPositions * kKvHeads * kHeadDim),
       &values = Floats(kPositions * kKvHeads * kHeadDim);
  float *const q_at = qkv.data(), *const k_at = q_at + kHeads * kHeadDim;
  const RopeArgs<float> q = {q_at,    q_at,   cos.data(), sin.data(),
                             kTokens, kHeads, kHeadDim,   kStride};
  RopeArgs<float> k = q;
  k.x = k.y = k_at;
  k.heads = kKvHeads;
  KvStoreArgs<float> store = {{kHeadDim, kPositions * kHeadDim, 1},
                              k_at,
                              k_at + kKvHeads * kHeadDim,
                              kTokens,
                              kStride,
                              1,
                              keys.data(),
                              values.data()};
  store.kv_heads = kKvHeads;
  store.head_dim = kHeadDim;
  EXPECT_EQ(Kernels(q, k, store), 1u);
  EXPECT_EQ(Kernels(k, store), 2u);
  EXPECT_EQ(Kernels(k, q, store), 3u);
  EXPECT_EQ(Kernels(q, k, q, k, store), 3u);
  RopeArgs<float> of_turned = k;
  of_turned.x = q_at + kHeadDim;
  EXPECT_EQ(Kernels(q, of_turned, store), 3u);
  KvStoreArgs<float> turned_values = store;
  turned_values.v = q_at;
  EXPECT_EQ(Kernels(q, k, turned_values), 3u);
  store.tokens = 2;
  EXPECT_EQ(Kernels(q, k, store), 3u);
}

// What waits when a pass goes is not run on the buffers of the next.
TEST_F(JoinedSteps, AreForgottenWithTheirPass) {
  auto &x = Floats(kCols), &weight = Floats(kCols), &y = Floats(kCols);
  const RmsNormArgs<float> norm = {x.data(), weight.data(), y.data(), 1, kCols, 1e-6f};
  EXPECT_EQ(Kernels(norm), 1u);
  const size_t before = GridsRun();
  RunOnDevice(norm, LaunchRmsNorm);
  pass_.reset();
  LaunchWaiting();
  EXPECT_EQ(GridsRun(), before);
}

}  // namespace
}  // namespace lab::LAB_CUDA_NAMESPACE
