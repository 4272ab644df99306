#pragma once
// The only place that decides whether a row's result is right (whole passes: lab/composed.h).
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "lab/binding.h"
#include "lab/expect.h"

namespace lab {

enum class Status { pass, fail, not_built, not_run };
std::string_view NameOf(Status status);

/// What the criteria in common use say of the same numbers: relative squared error at most 5e-4
/// (llama.cpp's test-backend-ops), cosine at least 0.999, abs(error) <= 0.01 + 0.01 abs(expected)
/// everywhere (as torch.allclose). Reported beside ours, never gated.
struct UsualCriteria {
  bool nmse = true, cosine = true, allclose = true;
};

struct Verdict {
  Status status = Status::pass;
  std::string why;        ///< of a failure: "error 12x the tolerance", "not written", ...
  uint64_t compared = 0;  ///< elements
  double worst = 0;    ///< largest error / tolerance; infinite where an exact bit or a NaN is wrong
  std::string output;  ///< the worst element: output, token, channel, what was there, what is right
  size_t token = 0, channel = 0;
  double got = 0, expected = 0;
  double tolerance = 0;  ///< of the worst element; 0 where the bits must be right
  UsualCriteria usual;
  std::string blame;  ///< which part of the weights explains a failure (lab/blame.h), or ""

  double error() const { return std::abs(got - expected); }  ///< of the worst element
};

/// Compares what a kernel wrote with what is right: finite or not must match before anything else,
/// then every element `!(error <= tolerance)`, exact outputs by their bits. Nothing compared is a
/// failure.
Verdict JudgeOutputs(const std::vector<Expected>& expected,
                     const std::deque<GuardedBuffer<float>>& got, bool guards_intact, size_t lanes);

bool SameBits(const std::deque<GuardedBuffer<float>>& a, const std::deque<GuardedBuffer<float>>& b);

/// The lanes of a row's vectors: those of the SIMD target in use, of a warp, or 1.
size_t LanesOf(const Row& row);

/// Runs a row on a case (`repeat` times; all must give the same bits) and judges it. lanes: of the
/// row's vectors. Status not_run where the row passes and its mutant changes no bit. A row that
/// throws, as rows on a device may, fails.
/// A failure names the part of the weights that explains it.
Verdict JudgeRow(const Case& c, const RowUse& use, const std::vector<Expected>& expected,
                 bool half_kv, int threads, int repeat, size_t lanes);

/// sqrt(sum (contract - exact)^2 / sum exact^2) over all outputs: what the contract itself costs.
double MethodError(const std::vector<Expected>& contract, const std::vector<Expected>& exact);

}  // namespace lab
