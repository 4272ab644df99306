// mma.sync.aligned.m16n8k32 and m16n8k16 on 8-bit integers, from the fragments that PTX defines.
// Here and not in a header, so that its accesses to other threads' registers are no accesses.
#include "tests/simt/engine.h"

namespace lab::cuda_host {
namespace {

constexpr int kRows = 16, kCols = 8, kMostK = 32;

struct Tiles {
  int a[kRows][kMostK], b[kMostK][kCols];
};

int ByteOf(unsigned word, int i, bool is_signed) {
  const unsigned byte = word >> (8 * i) & 0xff;
  return is_signed ? static_cast<int8_t>(byte) : static_cast<int>(byte);
}

void Gather(const MmaLane& own, int lane, Tiles& tiles) {
  const int group = lane / 4, in_group = lane % 4;
  for (int i = 0; i < own.k / 8; ++i)
    for (int byte = 0; byte < 4; ++byte)
      tiles.a[group + 8 * (i % 2)][16 * (i / 2) + 4 * in_group + byte] =
          ByteOf(own.a[i], byte, true);
  for (int i = 0; i < own.k / 16; ++i)
    for (int byte = 0; byte < 4; ++byte)
      tiles.b[16 * i + 4 * in_group + byte][group] = ByteOf(own.b[i], byte, own.b_is_signed);
}

void AddProducts(const MmaLane& own, int lane, const Tiles& tiles) {
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + 8 * (i / 2), col = 2 * (lane % 4) + i % 2;
    for (int k = 0; k < own.k; ++k) own.c[i] += tiles.a[row][k] * tiles.b[k][col];
  }
}

}  // namespace

bool MultiplyFragments(const MmaLane* const (&lanes)[32]) {
  Tiles tiles;
  for (int lane = 0; lane < 32; ++lane) {
    const bool same =
        lanes[lane]->k == lanes[0]->k && lanes[lane]->b_is_signed == lanes[0]->b_is_signed;
    if (!same) return false;
    Gather(*lanes[lane], lane, tiles);
  }
  for (int lane = 0; lane < 32; ++lane) AddProducts(*lanes[lane], lane, tiles);
  return true;
}

}  // namespace lab::cuda_host
