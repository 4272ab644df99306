#include "lab/expect.h"

#include <algorithm>
#include <cmath>

#include "kernels/half.h"
#include "lab/binding.h"
#include "lab/parallel.h"
#include "reference/dequant_ref.h"

namespace lab {
namespace {

constexpr double kU = 0x1p-24;

// Dot rule: 4 u sqrt(d) sum_j |w_j x_j| + u |y|; rows that do not form each weight (integer rows)
// add 4 u sum_j (|d sc q| + |dmin m|) |x_j|. Inputs that are off by the part `rounding` of their
// size add rounding sum_j |w_j x_j|, errors carried from steps before sum_j |w_j| error_j.
void AddDotTolerance(Expected& e, const WeightView& w, const std::vector<double>& x,
                     bool integer_rows, double rounding, const std::vector<double>& carried,
                     int threads) {
  e.chain = w.cols;
  e.per_sqrt_d.resize(e.value.size());
  e.fixed.resize(e.value.size());
  const auto add_row = [&](size_t r, std::vector<float>& row, std::vector<float>& parts) {
    DequantRow(w.type, w.row(r), w.cols, row.data());
    if (integer_rows) DequantMagnitudes(w.type, w.row(r), w.cols, parts.data());
    for (size_t t = 0; t < e.tokens; ++t) {
      double terms = 0, part_terms = 0, carried_terms = 0;
      for (size_t j = 0; j < w.cols; ++j) {
        const double magnitude = std::abs(x[t * w.cols + j]);
        terms += std::abs(row[j]) * magnitude;
        if (integer_rows) part_terms += parts[j] * magnitude;
        if (!carried.empty()) carried_terms += std::abs(row[j]) * carried[t * w.cols + j];
      }
      e.per_sqrt_d[t * e.n + r] = 4 * kU * terms;
      e.fixed[t * e.n + r] = kU * std::abs(e.value[t * e.n + r]) + 4 * kU * part_terms +
                             rounding * terms + carried_terms;
    }
  };
  ParallelFor(threads, [&](int i) {
    std::vector<float> row(w.cols), parts(w.cols);
    const auto part = static_cast<size_t>(i), all = static_cast<size_t>(threads);
    for (size_t r = w.rows * part / all; r < w.rows * (part + 1) / all; ++r) add_row(r, row, parts);
  });
}

void DotOutputs(const Case& c, Contract contract, double rounding,
                const std::vector<double>& carried, std::vector<Expected>& outputs, int threads) {
  for (Expected& e : outputs) {
    const WeightView& w = e.name == "up" ? c.w_up : c.w;
    const bool integer_rows = contract != Contract::f32 && ActivationBlock(w.type) != 0;
    AddDotTolerance(e, w, ActivationsOf(c, contract, w), integer_rows, rounding, carried, threads);
  }
  // Adding the bias rounds once more; the sum before it may be the larger of the two.
  if (outputs.size() == 2 && outputs[1].name == "y_before_bias")
    for (size_t i = 0; i < outputs[0].value.size(); ++i)
      outputs[0].fixed[i] += kU * std::abs(outputs[1].value[i]);
}

// A case that calls itself exact is so under q8 and q16 only where the integers stand for x itself.
// They do when each block's largest magnitude makes a scale without rounding, such as 127 (1 and
// 2^-8); else the contract computes from other numbers, whose products need more than 24 bits.
bool IsExactUnder(const Case& c, Contract contract) {
  const std::vector<double> x(c.x.begin(), c.x.end());
  return c.exact && (!c.w.data || ActivationsOf(c, contract, c.w) == x) &&
         (!c.w_up.data || ActivationsOf(c, contract, c.w_up) == x);
}

// (sqrt(d) / 2 + 4) u relative; the error of an input moves its own channel and the rms.
void NormTolerance(const Case& c, double rounding, const std::vector<double>& carried,
                   Expected& e) {
  e.chain = e.n;
  for (const double y : e.value) {
    e.per_sqrt_d.push_back(0.5 * kU * std::abs(y));
    e.fixed.push_back((4 * kU + 2 * rounding) * std::abs(y));
  }
  if (carried.empty()) return;
  for (size_t t = 0; t < e.tokens; ++t) {
    double squares = static_cast<double>(e.n) * c.eps, moved = 0;
    for (size_t i = t * e.n; i < (t + 1) * e.n; ++i) {
      squares += static_cast<double>(c.x[i]) * c.x[i];
      moved += std::abs(c.x[i]) * carried[i];
    }
    const double rms = std::sqrt(squares / static_cast<double>(e.n));
    for (size_t i = t * e.n; i < (t + 1) * e.n; ++i)
      e.fixed[i] +=
          std::abs(c.vector[i % e.n]) * carried[i] / rms + std::abs(e.value[i]) * moved / squares;
  }
}

// 4 ulp; subnormal results may be flushed to zero.
void UlpTolerance(Expected& e) {
  e.per_sqrt_d.assign(e.value.size(), 0);
  for (const double y : e.value) {
    const auto rounded = std::abs(static_cast<float>(y));
    e.fixed.push_back(4 * (static_cast<double>(std::nextafter(rounded, INFINITY)) - rounded) +
                      0x1p-126);
  }
}

// |silu'(x)| of one whose x may be off by `error`; |silu''| is at most 1/2.
double SiluSlope(double x, double error) {
  const double s = 1 / (1 + std::exp(-x));
  return std::abs(s + x * s * (1 - s)) + error / 2;
}

// The dot rule on gate and up, carried through silu and the product:
// tol_silu = |silu'(gate)| tol_gate + 4 ulp, tol_y = |up| tol_silu + |silu| tol_up + tol_silu
// tol_up
// + u |y|. Tolerances that are not first order are taken at one lane, where they are largest.
void FusedTolerance(const Case& c, Contract contract, double rounding,
                    const std::vector<double>& carried, std::vector<Expected>& outputs,
                    int threads) {
  Expected &gate = outputs[0], &up = outputs[1], &silu = outputs[2], &y = outputs[3];
  const auto dot = [&](Expected& e, const WeightView& w) {
    const bool integer_rows = contract != Contract::f32 && ActivationBlock(w.type) != 0;
    AddDotTolerance(e, w, ActivationsOf(c, contract, w), integer_rows, rounding, carried, threads);
  };
  dot(gate, c.w);
  dot(up, c.w_up);
  UlpTolerance(silu);
  silu.chain = y.chain = gate.chain;
  for (size_t i = 0; i < y.value.size(); ++i) {
    const double slope = SiluSlope(gate.value[i], gate.Tolerance(i, 1));
    silu.per_sqrt_d[i] = slope * gate.per_sqrt_d[i];
    silu.fixed[i] += slope * gate.fixed[i];
    const double s = std::abs(silu.value[i]), u = std::abs(up.value[i]);
    y.per_sqrt_d.push_back(u * silu.per_sqrt_d[i] + s * up.per_sqrt_d[i]);
    y.fixed.push_back(u * silu.fixed[i] + s * up.fixed[i] +
                      silu.Tolerance(i, 1) * up.Tolerance(i, 1) + kU * std::abs(y.value[i]));
  }
}

// 4 u times the length of the pair that is rotated. An input in few bits stands for arithmetic in
// few bits, which rounds the products as well.
void RopeTolerance(const Case& c, double rounding, const std::vector<double>& carried,
                   Expected& e) {
  e.per_sqrt_d.assign(e.value.size(), 0);
  e.fixed.resize(e.value.size());
  const size_t half = c.head_dim / 2;
  for (size_t i = 0; i < e.value.size(); ++i) {
    const size_t first = i / c.head_dim * c.head_dim + i % half;
    e.fixed[i] = (4 * kU + 2 * rounding) * std::hypot(c.x[first], c.x[first + half]);
    if (!carried.empty()) e.fixed[i] += std::hypot(carried[first], carried[first + half]);
  }
}

// The dot rule on the scores, carried through softmax and the weighted sum:
// sum_j |v_j| p_j (2 max_j tol_s + (n + 3) u) + 4 u sqrt(n) sum_j p_j |v_j|. Inputs off by the part
// r of their size move a score by up to s = 2 r sum |q k|, a p by the factor exp(2 s), which is far
// from first order for bfloat16, and v by r. Errors carried from steps before add to s and to v
// what they are; a key or value that is then rounded to a half float may fall to another one.
class AttentionTolerance {
 public:
  AttentionTolerance(const Case& c, bool half_kv, double rounding, const InputErrors& carried)
      : c_(c), k_(c.k), v_(c.v), rounding_(rounding), carried_(carried) {
    carried_.x.resize(c.x.size());
    carried_.k.resize(c.k.size());
    carried_.v.resize(c.v.size());
    if (!half_kv) return;
    for (const auto& [values, errors] : {std::pair(&k_, &carried_.k), {&v_, &carried_.v}})
      for (size_t i = 0; i < values->size(); ++i) {
        float& x = (*values)[i];
        x = HalfToFloat(FloatToHalf(x));
        if ((*errors)[i] > 0) (*errors)[i] += 2 * HalfUlp(x, StoredType::f16);
      }
  }

  void Fill(Expected& e) {
    e.chain = c_.head_dim;
    e.per_sqrt_d.resize(e.value.size());
    e.fixed.resize(e.value.size());
    for (size_t t = 0; t < c_.tokens; ++t)
      for (size_t h = 0; h < c_.heads; ++h) FillHead(e, t, h);
  }

 private:
  void FillHead(Expected& e, size_t t, size_t h) const {
    const size_t seen = c_.first_position + t + 1, dim = c_.head_dim, kv_stride = c_.kv_heads * dim;
    const size_t kv = h / (c_.heads / c_.kv_heads) * dim;
    const float* q = &c_.x[t * c_.n() + h * dim];
    const double* q_error = &carried_.x[t * c_.n() + h * dim];
    const double root = std::sqrt(static_cast<double>(dim));
    std::vector<double> p(seen);
    double terms = 0, moved = 0, largest_magnitude = 0;  // largest over j
    for (size_t j = 0; j < seen; ++j) {
      double dot = 0, sum = 0, move = 0;
      for (size_t i = 0; i < dim; ++i) {
        const size_t of_k = j * kv_stride + kv + i;
        const double term = static_cast<double>(q[i]) * k_[of_k];
        dot += term;
        sum += std::abs(term);
        move += std::abs(q[i]) * carried_.k[of_k] +
                q_error[i] * (std::abs(k_[of_k]) + carried_.k[of_k]);
      }
      p[j] = dot / root;
      terms = std::max(terms, sum / root);
      moved = std::max(moved, move / root);
      largest_magnitude = std::max(largest_magnitude, std::abs(p[j]));
    }
    const double largest = *std::max_element(p.begin(), p.end());
    double total = 0;
    for (double& s : p) total += s = std::exp(s - largest);
    const auto n = static_cast<double>(seen);
    for (size_t i = 0; i < dim; ++i) {
      double weighted = 0, v_errors = 0;
      for (size_t j = 0; j < seen; ++j) {
        weighted += p[j] / total * std::abs(v_[j * kv_stride + kv + i]);
        v_errors += p[j] / total * carried_.v[j * kv_stride + kv + i];
      }
      const double other_p = std::expm1(4 * rounding_ * terms + 2 * moved);
      const size_t at = t * e.n + h * dim + i;
      e.per_sqrt_d[at] = weighted * 2 * 4 * kU * terms;
      // The score is rounded in the division by sqrt(head_dim) and in the subtraction of the
      // largest.
      e.fixed[at] = weighted * (kU * (2 * 3 * largest_magnitude + n + 3 + 4 * std::sqrt(n)) +
                                other_p + rounding_) +
                    v_errors * (1 + other_p);
    }
  }

  const Case& c_;
  std::vector<float> k_, v_;
  double rounding_;
  InputErrors carried_;
};

double ErrorAt(double x, StoredType type, const std::vector<double>& carried, size_t i) {
  return HalfUlp(x, type) + (carried.empty() ? 0 : carried[i]);
}

// What must be ours bit by bit is another program's within 4 ulp at the size of the operands, with
// what the errors of these do.
void ElementwiseTolerance(const Case& c, const Storage& storage, Expected& e) {
  e.exact = false;
  e.per_sqrt_d.assign(e.value.size(), 0);
  for (size_t i = 0; i < e.value.size(); ++i) {
    const double y = std::abs(e.value[i]);
    if (c.op == Op::embed) {
      e.fixed.push_back(8 * HalfUlp(y, StoredType::f32));
      continue;
    }
    const double a = std::abs(c.x[i]), b = std::abs(c.x2[i]);
    const double error_a = ErrorAt(a, storage.inputs, storage.carried.x, i),
                 error_b = ErrorAt(b, storage.inputs, storage.carried.x2, i);
    e.fixed.push_back(
        8 * HalfUlp(std::max({a, b, y}), StoredType::f32) +
        (c.op == Op::swiglu ? a * error_b + b * error_a + error_a * error_b : error_a + error_b));
  }
}

void AddInputErrors(const Case& c, const Storage& storage, Expected& silu) {
  for (size_t i = 0; i < silu.value.size(); ++i) {
    const double error = ErrorAt(c.x[i], storage.inputs, storage.carried.x, i);
    silu.fixed[i] += SiluSlope(c.x[i], error) * error;
  }
}

}  // namespace

double Expected::Tolerance(size_t i, size_t lanes) const {
  if (exact) return 0;
  const double d = static_cast<double>(chain) / static_cast<double>(lanes) +
                   std::log2(static_cast<double>(lanes));
  return std::sqrt(d) * per_sqrt_d[i] + fixed[i];
}

std::vector<double> ActivationsOf(const Case& c, Contract contract, const WeightView& w) {
  std::vector<double> x(c.x.begin(), c.x.end());
  const QuantizedBuffer integers = QuantizeCase(c, contract, w);
  if (!integers.view().hi) return x;
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<double>(integers.view().scale[i / integers.view().block]) *
           integers.view().Integer(i);
  return x;
}

std::vector<Expected> ExpectedOf(const Case& c, Contract contract, bool half_kv, int threads,
                                 const std::optional<Storage>& storage) {
  Binding<double> oracle(c, contract, half_kv);
  const Row* row = FindRow(c.op, contract, Backend::oracle);
  oracle.Run({row ? row : FindRow(c.op, Contract::f32, Backend::oracle)}, threads);
  std::vector<Expected> outputs;
  for (const GuardedBuffer<double>& o : oracle.outputs())
    outputs.push_back(
        {o.name(), o.tokens(), o.n(), {o.data(), o.data() + o.size()}, false, 1, {}, {}});
  const double rounding = storage ? HalfUlp(1, storage->inputs) : 0;
  const InputErrors carried = storage ? storage->carried : InputErrors();
  switch (c.op) {
    case Op::q4k_dequant:
    case Op::q6k_dequant:
    case Op::embed:
    case Op::quantize:
    case Op::residual_add:
    case Op::swiglu:
      for (Expected& e : outputs) e.exact = true;
      if (storage && c.op != Op::quantize) ElementwiseTolerance(c, *storage, outputs[0]);
      break;
    case Op::matvec:
    case Op::down_proj:
    case Op::gate_up:
      DotOutputs(c, contract, rounding, carried.x, outputs, threads);
      break;
    case Op::gate_up_swiglu:
      FusedTolerance(c, contract, rounding, carried.x, outputs, threads);
      break;
    case Op::rms_norm:
      NormTolerance(c, rounding, carried.x, outputs[0]);
      break;
    case Op::silu:
      UlpTolerance(outputs[0]);
      if (storage) AddInputErrors(c, *storage, outputs[0]);
      break;
    case Op::rope:
      RopeTolerance(c, rounding, carried.x, outputs[0]);
      break;
    case Op::gqa_attention:
      AttentionTolerance(c, half_kv, rounding, carried).Fill(outputs[0]);
      break;
  }
  if (storage) {
    for (Expected& e : outputs)
      for (size_t i = 0; i < e.value.size(); ++i)
        // At the far end of the tolerance, which may have a larger ulp.
        e.fixed[i] += HalfUlp(std::abs(e.value[i]) + e.fixed[i], storage->outputs);
  } else if (IsExactUnder(c, contract)) {
    for (Expected& e : outputs) e.exact = true;
  }
  return outputs;
}

}  // namespace lab
