#include "bench/roofline.h"

#include <gtest/gtest.h>

#include <cstring>

#include "lab/aligned.h"
#include "lab/random.h"

namespace lab {
namespace {

TEST(Roofline, AnotherBandwidthAfterTheRunsIsSaid) {
  Roofline before;
  before.all.bytes = 40e9;
  EXPECT_EQ(AnotherRoof(before, 40e9), "");
  EXPECT_EQ(AnotherRoof(before, 45e9), "");
  EXPECT_EQ(AnotherRoof(before, 35e9), "");
  EXPECT_EQ(AnotherRoof(before, 30e9),
            "40.0 GB/s were read before the runs, 30.0 after them: percentages are of the former");
  EXPECT_NE(AnotherRoof(before, 50e9), "");
}

// q16 multiplies two planes of integers; what takes longer, moving or computing, is the roof.
TEST(Roofline, TheSlowerOfMovingAndComputingIsTheRoof) {
  Roofline r;
  r.all = {10, 100, 400};
  EXPECT_EQ(r.Seconds(20, 100, Contract::q8), 2);
  EXPECT_EQ(r.Seconds(20, 1600, Contract::q8), 4);
  EXPECT_EQ(r.Seconds(20, 1600, Contract::q16), 8);
  EXPECT_EQ(r.Seconds(20, 1600, Contract::f32), 16);
}

// Values at the head of every 64 bytes meet in the first lane, whatever the vector's length.
TEST(Roofline, EveryStreamIsReadOnce) {
  AlignedVector<uint8_t> bytes(8192, 0);
  Random random(1);
  uint64_t expected = 0;
  for (size_t i = 0; i < bytes.size(); i += 64) {
    const uint64_t value = random.Below(1 << 30);
    std::memcpy(&bytes[i], &value, sizeof value);
    expected ^= value;
  }
  for (const size_t streams : {1, 2, 4}) {
    uint64_t sink = 0;
    ReadAll(bytes.data(), bytes.size(), streams, &sink);
    EXPECT_EQ(sink, expected) << streams;
  }
}

}  // namespace
}  // namespace lab
