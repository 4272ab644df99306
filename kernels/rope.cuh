#pragma once
#include "kernels/cuda.cuh"
#include "kernels/rope.h"

namespace lab::LAB_CUDA_NAMESPACE {

/// Op rope, a thread for each pair.
struct RopePair {
  RopeArgs<float> a;

  size_t Pairs() const { return a.tokens * a.heads * (a.head_dim / 2); }
  __device__ void operator()(size_t pair) const {
    const size_t half = a.head_dim / 2, at = First(pair), angle = Token(pair) * half + pair % half;
    const float first = a.x[at], second = a.x[at + half];
    const float c = a.cos[angle], s = a.sin[angle];
    a.y[at] = first * c - second * s;
    a.y[at + half] = second * c + first * s;
  }
  /// Where the first value of a pair lies; the second is half a head behind it.
  __device__ size_t First(size_t pair) const {
    return Token(pair) * a.stride + Head(pair) * a.head_dim + pair % (a.head_dim / 2);
  }
  __device__ size_t Head(size_t pair) const { return pair / (a.head_dim / 2) % a.heads; }
  __device__ size_t Token(size_t pair) const { return pair / (a.head_dim / 2 * a.heads); }
};

}  // namespace lab::LAB_CUDA_NAMESPACE
