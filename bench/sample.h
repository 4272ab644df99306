#pragma once
// Judging a large case by a part of it: single tokens, and rows spread over its matrices.
#include "lab/judge.h"

namespace lab {

/// At most 8 tokens and 64 rows of a matrix, each with the oracle's word on it.
class Samples {
 public:
  Samples(const Case& c, Contract contract, bool half_kv);
  /// Takes the samples out of a row's outputs for the whole case. lanes: of its vectors.
  Verdict Judge(const std::deque<GuardedBuffer<float>>& outputs, bool guards_intact,
                size_t lanes) const;

 private:
  struct Sample {
    size_t token;
    std::vector<Expected> expected;
  };
  GuardedBuffer<float> Gather(const GuardedBuffer<float>& output, size_t token) const;

  Op op_;
  std::vector<size_t> rows_;  // of the matrices
  std::vector<Sample> samples_;
};

}  // namespace lab
