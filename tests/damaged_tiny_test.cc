// Files that lie: the header of the built-in model, cut and changed at every byte.
#include <atomic>
#include <functional>
#include <thread>

#include "model/gguf.h"
#include "tests/damaged_util.h"

namespace lab::damaged_test {
namespace {

// Calls part(first, last) for the parts of [0, n), each on a core of its own.
void InParallel(size_t n, const std::function<void(size_t, size_t)>& part) {
  const size_t parts = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (size_t p = 0; p < parts; ++p)
    threads.emplace_back([&, p] { part(n * p / parts, n * (p + 1) / parts); });
  for (std::thread& thread : threads) thread.join();
}

// A sanitizer slows a try down to 2 ms: there the even bytes are inverted and the odd ones lose a
// bit, and both changes to every byte are left to the other builds.
constexpr size_t kStride = kSanitized ? 2 : 1;

class DamagedTiny : public testing::Test {
 protected:
  void SetUp() override {
    const WeightFile gguf = ReadGguf(FileBytes::Borrow("tiny", TinyGguf()));
    header_ = gguf.data_offset();
    ASSERT_LT(header_, 32u << 10);
    ASSERT_EQ(Refusal(FileBytes::Borrow("tiny", TinyGguf())), std::nullopt);
  }

  // Changes each byte of the header in turn, or every stride-th.
  void ChangeEachByte(size_t start, size_t stride,
                      const std::function<uint8_t(size_t, uint8_t)>& change) {
    std::atomic<size_t> refused = 0, valid = 0;
    const size_t n = (header_ - start + stride - 1) / stride;
    InParallel(n, [&](size_t first, size_t last) {
      Bytes file = TinyGguf();
      for (size_t k = first; k < last && !HasFailure(); ++k) {
        const size_t i = start + k * stride;
        SCOPED_TRACE(i);
        const uint8_t old = std::exchange(file[i], change(i, file[i]));
        ++(Refusal(FileBytes::Borrow("tiny", file)) ? refused : valid);
        file[i] = old;
      }
    });
    EXPECT_EQ(refused + valid, n);
    EXPECT_GT(refused, 0u);
    EXPECT_GT(valid, 0u);
  }

  size_t header_ = 0;
};

TEST_F(DamagedTiny, CutAnywhereInTheHeader) {
  InParallel(header_, [&](size_t first, size_t last) {
    for (size_t n = first; n < last && !HasFailure(); ++n) {
      SCOPED_TRACE(n);
      // A vector of exactly n bytes: the sanitizer then sees a read past the end.
      Bytes cut(TinyGguf().begin(), TinyGguf().begin() + static_cast<ptrdiff_t>(n));
      EXPECT_NE(Refusal(FileBytes::FromMemory("tiny", std::move(cut))), std::nullopt);
    }
  });
}

TEST_F(DamagedTiny, EachByteOfTheHeaderInverted) {
  ChangeEachByte(0, kStride,
                 [](size_t, uint8_t byte) { return static_cast<uint8_t>(byte ^ 0xff); });
}

TEST_F(DamagedTiny, OneBitOfEachByteOfTheHeaderFlipped) {
  ChangeEachByte(kStride - 1, kStride, [](size_t i, uint8_t byte) {
    return static_cast<uint8_t>(byte ^ 1 << i / kStride % 8);
  });
}

}  // namespace
}  // namespace lab::damaged_test
