// The tensor cores of the SIMT layer against a plain triple loop over matrices.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/on_device.cuh"
#include "kernels/warp.cuh"
#include "lab/error.h"
#include "lab/random.h"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

// A [16, k] and B [8, k] of bytes, B column by column, and c [16, 8].
struct Tiles {
  const int8_t* a;
  const int8_t* b;
  int* c;
};

__device__ unsigned FourBytes(const int8_t* p) {
  unsigned word;
  std::memcpy(&word, p, 4);
  return word;
}

template <int k, bool kUnsignedB>
__global__ void MultiplyTiles(Tiles tiles) {
  const unsigned g = threadIdx.x / 4, t = threadIdx.x % 4;
  unsigned a[k / 8], b[k / 16];
  int c[4];
  for (unsigned i = 0; i < k / 8; ++i)
    a[i] = FourBytes(tiles.a + (g + i % 2 * 8) * k + i / 2 * 16 + 4 * t);
  for (unsigned i = 0; i < k / 16; ++i) b[i] = FourBytes(tiles.b + g * k + i * 16 + 4 * t);
  for (unsigned i = 0; i < 4; ++i) c[i] = tiles.c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  if constexpr (kUnsignedB)
    MmaUnsigned(a, b, c);
  else
    Mma(a, b, c);
  for (unsigned i = 0; i < 4; ++i) tiles.c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = c[i];
}

template <class T>
T* Fill(const DeviceBuffer& buffer, size_t n, Random& random) {
  auto* const values = reinterpret_cast<T*>(buffer.data());
  for (size_t i = 0; i < n; ++i)
    values[i] = static_cast<T>(static_cast<int>(random.Below(256)) - 128);
  return values;
}

template <int k, bool kUnsignedB>
void ExpectProducts() {
  Random random(7);
  const DeviceBuffer a(16 * k), b(8 * k), c(16 * 8 * sizeof(int));
  const Tiles tiles = {Fill<int8_t>(a, 16 * k, random), Fill<int8_t>(b, 8 * k, random),
                       Fill<int>(c, 16 * 8, random)};
  std::vector<int> expected(tiles.c, tiles.c + 16 * 8);
  for (int row = 0; row < 16; ++row)
    for (int col = 0; col < 8; ++col)
      for (int i = 0; i < k; ++i) {
        const int8_t x = tiles.b[col * k + i];
        expected[row * 8 + col] +=
            tiles.a[row * k + i] * (kUnsignedB ? static_cast<uint8_t>(x) : x);
      }
  Launch(MultiplyTiles<k, kUnsignedB>, 1, kWarp, 0, nullptr, tiles);
  EXPECT_EQ(std::vector<int>(tiles.c, tiles.c + 16 * 8), expected);
}

TEST(SimtMma, ProductsOf32Columns) {
  ExpectProducts<32, false>();
}
TEST(SimtMma, ProductsOf16Columns) {
  ExpectProducts<16, false>();
}
TEST(SimtMma, ProductsWithUnsignedBytes) {
  ExpectProducts<16, true>();
}

__global__ void WithoutALane(Tiles) {
  const unsigned a[4] = {}, b[2] = {};
  int c[4] = {};
  if (threadIdx.x != 5) Mma(a, b, c);
}
__global__ void DifferentOnes(Tiles) {
  const unsigned a[2] = {}, b[1] = {};
  int c[4] = {};
  if (threadIdx.x != 5)
    Mma(a, b, c);
  else
    MmaUnsigned(a, b, c);
}

TEST(SimtMma, AllLanesTakePartInTheSameOne) {
  EXPECT_THROW(Launch(WithoutALane, 1, kWarp, 0, nullptr, Tiles{}), Error);
  EXPECT_THROW(Launch(DifferentOnes, 1, kWarp, 0, nullptr, Tiles{}), Error);
}

}  // namespace
}  // namespace lab::LAB_CUDA_NAMESPACE
