#include "lab/judge.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "lab/blame.h"
#include "lab/device.h"
#include "lab/error.h"
#include "lab/simd_target.h"

namespace lab {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Error over tolerance of one element. 0/0, both exactly right, is 0.
double Ratio(double got, const Expected& e, size_t i, size_t lanes) {
  const double value = e.value[i];
  // As a float: what is right may be too large for one, and then infinity is right.
  const bool finite = std::isfinite(static_cast<float>(value));
  if (std::isfinite(got) != finite) return kInfinity;
  if (!finite) return 0;
  if (e.exact) {
    const bool same = std::bit_cast<uint32_t>(static_cast<float>(got)) ==
                      std::bit_cast<uint32_t>(static_cast<float>(value));
    return same ? 0 : kInfinity;
  }
  const double error = std::abs(got - value), tolerance = e.Tolerance(i, lanes);
  if (error <= tolerance) return tolerance > 0 ? error / tolerance : 0;
  return tolerance > 0 ? error / tolerance : kInfinity;
}

void ApplyUsualCriteria(const Expected& e, const GuardedBuffer<float>& got, UsualCriteria& usual) {
  double error = 0, energy = 0, got_energy = 0, product = 0;
  const bool same_size = got.size() == e.value.size();
  for (size_t i = 0; same_size && i < e.value.size(); ++i) {
    const double x = got.data()[i], y = e.value[i];
    if (!std::isfinite(x) && !std::isfinite(y)) continue;  // an input was not finite
    error += (x - y) * (x - y);
    energy += y * y;
    got_energy += x * x;
    product += x * y;
    usual.allclose &= std::abs(x - y) <= 1e-2 + 1e-2 * std::abs(y);
  }
  const bool both_zero = energy == 0 && got_energy == 0;
  usual.allclose &= same_size;
  usual.nmse &= same_size && error <= 5e-4 * energy;
  usual.cosine &= same_size && (both_zero || product >= 0.999 * std::sqrt(energy * got_energy));
}

void Fail(Verdict& v, std::string why) {
  v.status = Status::fail;
  if (v.why.empty()) v.why = std::move(why);
}

}  // namespace

std::string_view NameOf(Status status) {
  constexpr std::string_view kNames[] = {"pass", "FAIL", "not built", "not run"};
  return kNames[static_cast<size_t>(status)];
}

Verdict JudgeOutputs(const std::vector<Expected>& expected,
                     const std::deque<GuardedBuffer<float>>& got, bool guards_intact,
                     size_t lanes) {
  Verdict v;
  for (size_t o = 0; o < expected.size(); ++o) {
    const Expected& e = expected[o];
    if (o >= got.size() || got[o].size() != e.value.size()) {
      Fail(v, fmt::format("output '{}' has the wrong size", e.name));
      continue;
    }
    for (size_t i = 0; i < e.value.size(); ++i, ++v.compared) {
      const double ratio = Ratio(got[o].data()[i], e, i, lanes);
      if (v.compared > 0 && !(ratio > v.worst)) continue;
      v.worst = ratio;
      v.output = e.name;
      v.token = i / e.n;
      v.channel = i % e.n;
      v.got = got[o].data()[i];
      v.expected = e.value[i];
      v.tolerance = e.Tolerance(i, lanes);
    }
  }
  for (size_t o = 0; o < expected.size() && o < got.size(); ++o)
    ApplyUsualCriteria(expected[o], got[o], v.usual);
  if (!guards_intact) Fail(v, "wrote outside its output");
  if (v.compared == 0) Fail(v, "nothing was compared");
  if (!(v.worst <= 1)) {
    if (std::isfinite(v.worst)) Fail(v, fmt::format("error {:.3g}x the tolerance", v.worst));
    Fail(v, std::isnan(v.got) ? "NaN, or not written" : "not the exact bits");
  }
  return v;
}

bool SameBits(const std::deque<GuardedBuffer<float>>& a,
              const std::deque<GuardedBuffer<float>>& b) {
  for (size_t o = 0; o < a.size(); ++o)
    if (std::memcmp(a[o].data(), b[o].data(), a[o].size() * sizeof(float)) != 0) return false;
  return a.size() == b.size();
}

size_t LanesOf(const Row& row) {
  constexpr size_t kWarp = 32;
  if (row.OnDevice()) return kWarp;
  return row.backend == Backend::hwy ? CurrentSimdTarget().lanes : 1;
}

namespace {

Verdict JudgeRuns(const Case& c, const RowUse& use, const std::vector<Expected>& expected,
                  bool half_kv, int threads, int repeat, size_t lanes) {
  Verdict v;
  const Contract contract = use.row->contract;
  Binding<float> first(c, contract, half_kv);
  first.Run(use, threads);
  v = JudgeOutputs(expected, first.outputs(), first.guards_intact(), lanes);
  for (int i = 1; i < repeat && v.status == Status::pass; ++i) {
    Binding<float> again(c, contract, half_kv);
    again.Run(use, threads);
    if (!SameBits(first.outputs(), again.outputs()))
      Fail(v, fmt::format("run {} gave other bits than run 1", i + 1));
  }
  if (v.status == Status::fail)
    v.blame = BlameSubBlock(c, contract, expected, first.outputs(), lanes);
  if (use.mutant && v.status == Status::pass) {
    Binding<float> plain(c, contract, half_kv);
    plain.Run({use.row}, threads);
    if (SameBits(first.outputs(), plain.outputs())) {
      v.status = Status::not_run;
      v.why = "the mutant changes no bit here";
    }
  }
  return v;
}

}  // namespace

Verdict JudgeRow(const Case& c, const RowUse& use, const std::vector<Expected>& expected,
                 bool half_kv, int threads, int repeat, size_t lanes) {
  Verdict v;
  if (!use.row->run) {
    v.status = Status::not_built;
    return v;
  }
  if (v.why = WhyNotHere(*use.row); !v.why.empty()) {
    v.status = Status::not_run;
    return v;
  }
  try {
    return JudgeRuns(c, use, expected, half_kv, threads, repeat, lanes);
  } catch (const Error& error) {
    v.status = error.code() == kCannotRun ? Status::not_run : Status::fail;
    v.why = error.what();
    return v;
  }
}

double MethodError(const std::vector<Expected>& contract, const std::vector<Expected>& exact) {
  double error = 0, energy = 0;
  for (size_t o = 0; o < exact.size() && o < contract.size(); ++o) {
    for (size_t i = 0; i < exact[o].value.size(); ++i) {
      const double d = contract[o].value[i] - exact[o].value[i];
      error += d * d;
      energy += exact[o].value[i] * exact[o].value[i];
    }
  }
  return energy > 0 ? std::sqrt(error / energy) : 0;
}

}  // namespace lab
