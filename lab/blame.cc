#include "lab/blame.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "reference/dequant_ref.h"

namespace lab {
namespace {

constexpr size_t kTokensNeeded = 5;        // two unknowns, and enough left over to contradict them
constexpr double kUnexplained = 1e-3;      // of the error's energy, for the part that is named
constexpr double kNextUnexplained = 1e-2;  // at least, for every other part

// Columns that share a scale; 32 where each weight has its own.
size_t SubBlock(BlockType type) {
  return type == BlockType::Q6_K ? 16 : 32;
}

std::string PartName(const WeightView& w, size_t begin, size_t end) {
  const size_t length = InfoOf(w.type).elements;
  std::string name = fmt::format("columns {} to {}", begin, end - 1);
  if (length != 256) return name;
  name += fmt::format(" (super-block {}", begin / 256);
  if (end - begin < 256) name += fmt::format(", sub-block {}", begin % 256 / (end - begin));
  return name + ")";
}

// e[t] = a p[t] + b q[t] in the least squares sense.
struct Fit {
  double a = 0, b = 0, unexplained = 1;  // unexplained: share of the energy of e
};
Fit FitTwo(const std::vector<double>& e, const std::vector<double>& p,
           const std::vector<double>& q) {
  double pp = 0, pq = 0, qq = 0, pe = 0, qe = 0, ee = 0;
  for (size_t t = 0; t < e.size(); ++t) {
    pp += p[t] * p[t];
    pq += p[t] * q[t];
    qq += q[t] * q[t];
    pe += p[t] * e[t];
    qe += q[t] * e[t];
    ee += e[t] * e[t];
  }
  Fit fit;
  const double determinant = pp * qq - pq * pq;
  if (pp == 0 || ee == 0) return fit;
  if (determinant > 1e-9 * pp * qq) {
    fit.a = (pe * qq - qe * pq) / determinant;
    fit.b = (qe * pp - pe * pq) / determinant;
  } else {
    fit.a = pe / pp;
  }
  double left = 0;
  for (size_t t = 0; t < e.size(); ++t) {
    const double d = e[t] - fit.a * p[t] - fit.b * q[t];
    left += d * d;
  }
  fit.unexplained = left / ee;
  return fit;
}

// The error of one row of a dot product, token by token, in units of the tolerance.
struct RowError {
  size_t row = 0, wrong_rows = 0, rows = 0;
  std::vector<double> error, unit;
};
RowError WorstRow(const Expected& e, const GuardedBuffer<float>& got, size_t lanes) {
  RowError worst;
  worst.rows = e.n;
  double largest = 0;
  for (size_t r = 0; r < e.n; ++r) {
    RowError row;
    double energy = 0, largest_ratio = 0;
    for (size_t t = 0; t < e.tokens; ++t) {
      const size_t i = t * e.n + r;
      const double unit = std::max(e.Tolerance(i, lanes), 1e-300);
      row.unit.push_back(unit);
      row.error.push_back((static_cast<double>(got.data()[i]) - e.value[i]) / unit);
      energy += row.error[t] * row.error[t];
      largest_ratio = std::max(largest_ratio, std::abs(row.error[t]));
    }
    worst.wrong_rows += largest_ratio > 1;
    if (!(energy > largest)) continue;
    largest = energy;
    worst.row = r;
    worst.error = std::move(row.error);
    worst.unit = std::move(row.unit);
  }
  return worst;
}

std::string Describe(const Fit& fit) {
  if (std::abs(fit.a + 1) < 1e-3) return "left out";
  if (std::abs(fit.a - 1) < 1e-3) return "counted twice";
  // Weights are of the order of 0.01; an offset below this is what rounding left of the fit.
  if (std::abs(fit.b) < 1e-6) return fmt::format("weights read as {:.4g} w", 1 + fit.a);
  return fmt::format("weights read as {:.4g} w {} {:.4g}", 1 + fit.a, fit.b < 0 ? "-" : "+",
                     std::abs(fit.b));
}

std::string BlameDot(const WeightView& w, const std::vector<double>& x, const Expected& e,
                     const GuardedBuffer<float>& got, size_t lanes) {
  if (e.tokens < kTokensNeeded) return "";
  const RowError worst = WorstRow(e, got, lanes);
  // No row was kept where each has a NaN in it.
  if (worst.wrong_rows == 0 || worst.unit.empty()) return "";
  std::vector<float> row(w.cols);
  DequantRow(w.type, w.row(worst.row), w.cols, row.data());
  for (const size_t part : {SubBlock(w.type), size_t{256}}) {
    Fit best;
    double next = 1;
    size_t best_begin = 0;
    for (size_t begin = 0; begin + part <= w.cols; begin += part) {
      std::vector<double> p(e.tokens), q(e.tokens);
      for (size_t t = 0; t < e.tokens; ++t)
        for (size_t c = begin; c < begin + part; ++c) {
          p[t] += static_cast<double>(row[c]) * x[t * w.cols + c] / worst.unit[t];
          q[t] += x[t * w.cols + c] / worst.unit[t];
        }
      const Fit fit = FitTwo(worst.error, p, q);
      if (fit.unexplained < best.unexplained) {
        next = best.unexplained;
        best = fit;
        best_begin = begin;
      } else {
        next = std::min(next, fit.unexplained);
      }
    }
    if (best.unexplained < kUnexplained && next > kNextUnexplained)
      return fmt::format("{} row {}, {}: {}{}", e.name, worst.row,
                         PartName(w, best_begin, best_begin + part), Describe(best),
                         worst.wrong_rows > 1 ? fmt::format("; {} of {} rows are wrong",
                                                            worst.wrong_rows, worst.rows)
                                              : "");
  }
  return "";
}

std::string BlameDequant(const WeightView& w, const Expected& e, const GuardedBuffer<float>& got) {
  const size_t part = SubBlock(w.type);
  size_t parts = 0, first_row = 0, first = 0;
  for (size_t r = 0; r < e.tokens; ++r)
    for (size_t begin = 0; begin < e.n; begin += part) {
      bool wrong = false;
      for (size_t c = begin; c < std::min(begin + part, e.n); ++c) {
        const size_t i = r * e.n + c;
        wrong |= std::bit_cast<uint32_t>(got.data()[i]) !=
                 std::bit_cast<uint32_t>(static_cast<float>(e.value[i]));
      }
      if (wrong && parts++ == 0) {
        first_row = r;
        first = begin;
      }
    }
  if (parts == 0) return "";
  return fmt::format("row {}, {}{}", first_row, PartName(w, first, std::min(first + part, e.n)),
                     parts > 1 ? fmt::format(" and {} more parts", parts - 1) : "");
}

}  // namespace

std::string BlameSubBlock(const Case& c, Contract contract, const std::vector<Expected>& expected,
                          const std::deque<GuardedBuffer<float>>& got, size_t lanes) {
  std::string blame;
  for (size_t o = 0; o < expected.size() && o < got.size() && blame.empty(); ++o) {
    const Expected& e = expected[o];
    if (got[o].size() != e.value.size()) continue;
    const WeightView& w = e.name == "up" ? c.w_up : c.w;
    switch (c.op) {
      case Op::matvec:
      case Op::down_proj:
      case Op::gate_up:
      case Op::gate_up_swiglu:
        if (e.name == "silu" || (e.name == "y" && c.op == Op::gate_up_swiglu)) break;  // no sums
        blame = BlameDot(w, ActivationsOf(c, contract, w), e, got[o], lanes);
        break;
      case Op::q4k_dequant:
      case Op::q6k_dequant:
      case Op::embed:
        blame = BlameDequant(w, e, got[o]);
        break;
      default:
        return "";
    }
  }
  return blame;
}

}  // namespace lab
