#pragma once
// The tensor cores on 8-bit integers: c += A B for a tile A of 16 rows, k = 32 or 16 columns, and B
// of k rows, 8 columns. A warp holds the tiles together. With g = lane / 4 and t = lane % 4, a lane
// has, four bytes to a register (PTX, "Matrix fragments for mma.m16n8k32", "... m16n8k16"):
//   a[0], a[1]  rows g and g + 8 of A, columns 4t to 4t + 3; a[2], a[3] likewise columns 16 + 4t
//   b[0]        column g of B, rows 4t to 4t + 3; b[1] rows 16 + 4t
//   c[0], c[1]  row g of c, columns 2t and 2t + 1; c[2], c[3] likewise row g + 8
// All lanes take part. Sums are exact in 32 bits. For nvcc alone, by way of kernels/cuda.cuh; the
// host forms are in tests/simt/simt.h.
#include "kernels/cuda.cuh"

namespace lab::LAB_CUDA_NAMESPACE {

/// k = 32, signed bytes.
__device__ inline void Mma(const unsigned (&a)[4], const unsigned (&b)[2], int (&c)[4]) {
  LAB_PTX_SM80(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/// k = 16, signed bytes.
__device__ inline void Mma(const unsigned (&a)[2], const unsigned (&b)[1], int (&c)[4]) {
  LAB_PTX_SM80(
      "mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 "
      "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]));
}
/// k = 16, the bytes of B unsigned.
__device__ inline void MmaUnsigned(const unsigned (&a)[2], const unsigned (&b)[1], int (&c)[4]) {
  LAB_PTX_SM80(
      "mma.sync.aligned.m16n8k16.row.col.s32.s8.u8.s32 "
      "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]));
}

}  // namespace lab::LAB_CUDA_NAMESPACE
