#include "bench/roofline.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace lab
