#include "lab/xray.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>

#include "kernels/six_bits.h"
#include "lab/binding.h"
#include "reference/dequant_ref.h"

namespace lab {
namespace {

constexpr double kU = 0x1p-24;
constexpr float kUnit = 127;
constexpr size_t kColumns = 256;  // unit inputs at a time

// A block as its type defines it: weight i = d scale[i / per] q[i] - dmin min[i / per].
struct Fields {
  double d = 0, dmin = 0;
  size_t per = 32;
  std::vector<int> scale = {1}, min = {0}, q;

  double D(size_t s) const { return d * scale[s]; }
  double M(size_t s) const { return dmin * min[s]; }
};

template <class Block>
Block As(const uint8_t* bytes) {
  Block block;
  std::memcpy(&block, bytes, sizeof block);
  return block;
}

Fields FieldsOf4(const uint8_t* bytes) {
  const auto b = As<BlockQ4_0>(bytes);
  Fields f;
  f.d = HalfToFloat(b.d);
  for (size_t i = 0; i < 32; ++i) f.q.push_back((b.qs[i % 16] >> (i / 16 * 4) & 15) - 8);
  return f;
}
Fields FieldsOf5(const uint8_t* bytes) {
  const auto b = As<BlockQ5_0>(bytes);
  Fields f;
  f.d = HalfToFloat(b.d);
  for (size_t i = 0; i < 32; ++i)
    f.q.push_back((b.qs[i % 16] >> (i / 16 * 4) & 15) + ((b.qh[i / 8] >> i % 8 & 1) << 4) - 16);
  return f;
}
Fields FieldsOf8(const uint8_t* bytes) {
  const auto b = As<BlockQ8_0>(bytes);
  Fields f;
  f.d = HalfToFloat(b.d);
  f.q.assign(b.qs, b.qs + 32);
  return f;
}
template <class Block>
Fields FieldsOfSixBits(const uint8_t* bytes) {
  const auto b = As<Block>(bytes);
  Fields f;
  f.d = HalfToFloat(b.d);
  f.dmin = HalfToFloat(b.dmin);
  const SixBits six = UnpackSixBits(b.scales);
  f.scale.clear();
  f.min.clear();
  for (size_t s = 0; s < 8; ++s) {
    f.scale.push_back(static_cast<int>(six.scales >> 8 * s & 63));
    f.min.push_back(static_cast<int>(six.mins >> 8 * s & 63));
    for (size_t i = 0; i < 32; ++i) {
      int q = b.qs[s / 2 * 32 + i] >> (s % 2 * 4) & 15;
      if constexpr (requires { b.qh; }) q += (b.qh[i] >> s & 1) << 4;
      f.q.push_back(q);
    }
  }
  return f;
}
Fields FieldsOf6K(const uint8_t* bytes) {
  const auto b = As<BlockQ6_K>(bytes);
  Fields f;
  f.d = HalfToFloat(b.d);
  f.per = 16;
  f.scale.assign(b.scales, b.scales + 16);
  f.min.assign(16, 0);
  for (size_t i = 0; i < 256; ++i) {
    const size_t half = i / 128, k = i % 128 / 32, l = i % 32;
    const int low = b.ql[64 * half + 32 * (k % 2) + l] >> (4 * (k / 2)) & 15;
    f.q.push_back((low | (b.qh[32 * half + l] >> 2 * k & 3) << 4) - 32);
  }
  return f;
}

// Absent for types that have no fields.
std::optional<Fields> FieldsOf(BlockType type, const uint8_t* bytes) {
  switch (type) {
    case BlockType::Q4_0:
      return FieldsOf4(bytes);
    case BlockType::Q5_0:
      return FieldsOf5(bytes);
    case BlockType::Q8_0:
      return FieldsOf8(bytes);
    case BlockType::Q4_K:
      return FieldsOfSixBits<BlockQ4_K>(bytes);
    case BlockType::Q5_K:
      return FieldsOfSixBits<BlockQ5_K>(bytes);
    case BlockType::Q6_K:
      return FieldsOf6K(bytes);
    default:
      return std::nullopt;
  }
}

std::string Factor(double got, double right) {
  const double ratio = got / right;
  if (std::abs(ratio) < 1e-6) return "left out";
  if (std::abs(ratio + 1) < 1e-6) return "with the wrong sign";
  return fmt::format("read as {:.6g} of it", ratio);
}

// What is wrong with one matrix, gathered block by block.
class Diagnosis {
 public:
  Diagnosis(const WeightView& w, const WeightView& other, const std::vector<float>& got)
      : w_(w), other_(other), got_(got), right_(Dequantised(w)) {
    std::vector<float> parts(w.cols);
    for (size_t r = 0; r < w.rows; ++r) {
      DequantMagnitudes(w.type, w.row(r), w.cols, parts.data());
      for (size_t c = 0; c < w.cols; ++c) {
        const size_t i = r * w.cols + c;
        wrong_.push_back(!(std::abs(got[i] - right_[i]) <= 8 * kU * parts[c]));
      }
    }
  }

  size_t wrong() const { return static_cast<size_t>(std::count(wrong_.begin(), wrong_.end(), 1)); }

  std::vector<XrayFinding> Findings() {
    if (wrong() == 0) return {};
    if (2 * wrong() > got_.size())
      if (auto moved = Moved()) return {*moved};
    const size_t length = std::max<size_t>(InfoOf(w_.type).elements, 32);
    for (size_t r = 0; r < w_.rows; ++r)
      for (size_t c = 0; c < w_.cols; c += length) Block(r, c, std::min(length, w_.cols - c));
    std::vector<XrayFinding> findings;
    for (auto& [key, finding] : found_) findings.push_back(std::move(finding));
    std::stable_sort(findings.begin(), findings.end(),
                     [](const auto& a, const auto& b) { return a.parts > b.parts; });
    return findings;
  }

 private:
  static std::vector<float> Dequantised(const WeightView& w) {
    std::vector<float> values(w.rows * w.cols);
    for (size_t r = 0; r < w.rows; ++r) DequantRow(w.type, w.row(r), w.cols, &values[r * w.cols]);
    return values;
  }

  // Whether nearly all weights are those of from(r, c) in `values`: constant ones match anywhere.
  template <class From>
  bool Matches(const std::vector<float>& values, From from) const {
    size_t good = 0;
    for (size_t r = 0; r < w_.rows; ++r)
      for (size_t c = 0; c < w_.cols; ++c) {
        const float value = values[from(r, c)], got = got_[r * w_.cols + c];
        good += std::abs(got - value) <= 1e-5f * std::abs(value) + 1e-9f;
      }
    return good >= got_.size() / 100 * 99;
  }

  // Weights that are right but at the wrong place.
  std::optional<XrayFinding> Moved() const {
    const size_t rows = w_.rows, cols = w_.cols, length = InfoOf(w_.type).elements;
    XrayFinding f = {"", "", wrong(), 0, rows - 1, rows, "the whole matrix"};
    const auto say = [&](const char* field, std::string what) {
      f.field = field;
      f.what = std::move(what);
      return f;
    };
    if (Matches(right_, [&](size_t r, size_t c) { return c * rows + r; }))
      return say("transposed", "element [row, column] read at column * rows + row");
    const auto block = [&](size_t r, size_t c) {
      return (c / length * rows + r) * length + c % length;
    };
    if (length > 1 && cols > length && Matches(right_, block))
      return say("transposed", "block [row, block] read at block * rows + row");
    for (const size_t shift : {size_t{1}, rows - 1})
      if (Matches(right_, [&](size_t r, size_t c) { return (r + shift) % rows * cols + c; }))
        return say("rows", fmt::format("row r reads row r {} 1", shift == 1 ? '+' : '-'));
    if (other_.data && other_.rows == rows && other_.cols == cols &&
        Matches(Dequantised(other_), [&](size_t r, size_t c) { return r * cols + c; }))
      return say("matrix", "the weights of the other matrix");
    return std::nullopt;
  }

  void Add(const char* field, const std::string& kind, const std::string& what, size_t row,
           const std::string& where) {
    auto [it, is_new] = found_.try_emplace({field, kind});
    XrayFinding& f = it->second;
    if (is_new) f = {field, what, 0, row, row, 0, fmt::format("row {}, {}", row, where)};
    f.rows += is_new || f.last_row != row;
    f.last_row = row;
    ++f.parts;
  }

  // What fits the effective weights of a sub-block: D q - M; absent where nothing does.
  struct Fit {
    double d, m;
  };
  static std::optional<Fit> FitTo(const int* q, const float* got, size_t n) {
    double sum = 0, squares = 0, total = 0, product = 0;
    for (size_t i = 0; i < n; ++i) {
      sum += q[i];
      squares += static_cast<double>(q[i]) * q[i];
      total += got[i];
      product += static_cast<double>(got[i]) * q[i];
    }
    const auto count = static_cast<double>(n);
    const double determinant = count * squares - sum * sum;
    if (determinant == 0) return std::nullopt;
    const Fit fit = {(count * product - sum * total) / determinant,
                     (sum * product - squares * total) / determinant};
    double size = 0, worst = 0;
    for (size_t i = 0; i < n; ++i) {
      const double error = std::abs(fit.d * q[i] - fit.m - got[i]);
      size = std::max(size, std::abs(fit.d * q[i]) + std::abs(fit.m));
      worst = error <= worst ? worst : error;
    }
    return worst <= 64 * kU * size ? std::optional(fit) : std::nullopt;
  }

  void Block(size_t r, size_t c, size_t n) {
    const size_t at = r * w_.cols + c;
    const auto any = [&](size_t from, size_t length) {
      return std::any_of(&wrong_[from], &wrong_[from] + length, [](char x) { return x != 0; });
    };
    if (!any(at, n)) return;
    const size_t length = InfoOf(w_.type).elements;
    const auto fields = FieldsOf(w_.type, w_.row(r) + c / length * InfoOf(w_.type).bytes);
    const std::string block =
        length == 256 ? fmt::format("super-block {}", c / 256) : fmt::format("columns from {}", c);
    if (!fields) return Add("weights", "", Example(at, n), r, block);
    if (std::all_of(&got_[at], &got_[at] + n, [](float x) { return x == 0; }))
      return Add("block", "", "left out", r, block);
    const size_t parts = n / fields->per;
    std::vector<std::optional<Fit>> fits(parts);
    bool all_fit = true;
    for (size_t s = 0; s < parts; ++s) {
      fits[s] = FitTo(&fields->q[s * fields->per], &got_[at + s * fields->per], fields->per);
      if (!fits[s] && !any(at + s * fields->per, fields->per))
        fits[s] = Fit{fields->D(s), fields->M(s)};  // one quant alone, and right
      all_fit &= fits[s].has_value();
    }
    if (all_fit && WholeBlock(*fields, fits, r, block)) return;
    for (size_t s = 0; s < parts; ++s)
      if (any(at + s * fields->per, fields->per))
        SubBlock(*fields, s, fits[s], at + s * fields->per, r, block);
  }

  static bool Near(double got, double right, double scale) {
    return std::abs(got - right) <= 1e-5 * std::abs(right) + 1e-6 * scale;
  }

  // d and dmin: wrong by the same factor in every sub-block.
  bool WholeBlock(const Fields& f, const std::vector<std::optional<Fit>>& fits, size_t r,
                  const std::string& where) {
    double size = 0, d = NAN, dmin = NAN;
    for (size_t s = 0; s < fits.size(); ++s) {
      size = std::max({size, std::abs(f.D(s)), std::abs(f.M(s))});
      if (std::isnan(d) && f.scale[s] != 0) d = fits[s]->d / f.scale[s];
      if (std::isnan(dmin) && f.min[s] != 0) dmin = fits[s]->m / f.min[s];
    }
    for (size_t s = 0; s < fits.size(); ++s)
      if (!Near(fits[s]->d, f.scale[s] == 0 ? 0 : d * f.scale[s], size) ||
          !Near(fits[s]->m, f.min[s] == 0 ? 0 : dmin * f.min[s], size))
        return false;
    const bool d_wrong = !std::isnan(d) && std::abs(d - f.d) > 1e-5 * std::abs(f.d);
    const bool dmin_wrong = !std::isnan(dmin) && std::abs(dmin - f.dmin) > 1e-5 * std::abs(f.dmin);
    if (d_wrong && dmin_wrong && Near(d, f.dmin, 0) && Near(dmin, f.d, 0)) {
      Add("d", "exchanged", "d and dmin exchanged", r, where);
      return true;
    }
    if (d_wrong) Add("d", Kind(Factor(d, f.d)), Factor(d, f.d), r, where);
    if (dmin_wrong) Add("dmin", Kind(Factor(dmin, f.dmin)), Factor(dmin, f.dmin), r, where);
    return d_wrong || dmin_wrong;
  }
  // Factors other than 0 and -1 may differ from block to block.
  static std::string Kind(const std::string& what) {
    return what.starts_with("read") ? "read" : what;
  }

  void SubBlock(const Fields& f, size_t s, const std::optional<Fit>& fit, size_t at, size_t r,
                const std::string& block) {
    const std::string where =
        f.scale.size() > 1 ? fmt::format("{}, sub-block {}", block, s) : block;
    if (std::all_of(&got_[at], &got_[at] + f.per, [](float x) { return x == 0; }))
      return Add("sub-block", "", "left out", r, where);
    if (!fit) return Quants(f, s, at, r, where);
    const double size = std::max(std::abs(f.D(s)), std::abs(f.M(s)));
    if (!Near(fit->d, f.D(s), size)) Integer("scale", f.scale, s, fit->d / f.d, r, where);
    if (!Near(fit->m, f.M(s), size)) Integer("min", f.min, s, fit->m / f.dmin, r, where);
  }

  // One of the packed integers of a block was read as `got`.
  void Integer(const char* field, const std::vector<int>& right, size_t s, double got, size_t r,
               const std::string& where) {
    if (std::abs(got) < 1e-3) return Add(field, "left out", "left out", r, where);
    const size_t next = (s + 1) % right.size();
    if (right.size() > 1 && std::abs(got - right[next]) < 1e-3)
      return Add(field, "next", fmt::format("that of sub-block {} instead of {}", next, s), r,
                 where);
    Add(field, "other", fmt::format("{:.4g} instead of {}", got, right[s]), r, where);
  }

  // Neither scale nor minimum explains it: the quants.
  void Quants(const Fields& f, size_t s, size_t at, size_t r, const std::string& where) {
    std::vector<int> q;
    for (size_t i = 0; i < f.per; ++i) {
      const double value = (static_cast<double>(got_[at + i]) + f.M(s)) / f.D(s);
      if (!(std::abs(value - std::rint(value)) <= 1e-3) || std::abs(value) > 255)
        return Add("weights", "", Example(at, f.per), r, where);
      q.push_back(static_cast<int>(std::rint(value)));
    }
    for (size_t other = 0; other < f.q.size() / f.per; ++other)
      if (other != s && std::equal(q.begin(), q.end(), &f.q[other * f.per]))
        return Add("q", "moved", fmt::format("those of sub-block {} instead of {}", other, s), r,
                   where);
    const int* right = &f.q[s * f.per];
    const size_t i =
        static_cast<size_t>(std::mismatch(q.begin(), q.end(), right).first - q.begin());
    Add("q", "other", fmt::format("{} instead of {}", q[i], right[i]), r, where);
  }

  std::string Example(size_t at, size_t n) const {
    const auto i = static_cast<size_t>(std::find(&wrong_[at], &wrong_[at] + n, 1) - wrong_.data());
    return fmt::format("{:.7g} instead of {:.7g}", got_[i], right_[i]);
  }

  const WeightView &w_, &other_;
  const std::vector<float>&got_, right_;
  std::vector<char> wrong_;
  std::map<std::pair<std::string, std::string>, XrayFinding> found_;
};

}  // namespace

std::vector<EffectiveWeights> MeasureWeights(const Case& step, const RowUse& use, int threads) {
  const size_t cols = step.w.cols, rows = step.w.rows;
  std::vector<EffectiveWeights> measured;
  Case unit = step;
  unit.vector.clear();
  for (size_t first = 0; first < cols; first += kColumns) {
    unit.tokens = std::min(kColumns, cols - first);
    unit.x.assign(unit.tokens * cols, 0);
    for (size_t t = 0; t < unit.tokens; ++t) unit.x[t * cols + first + t] = kUnit;
    Binding<float> binding(unit, use.row->contract, false);
    binding.Run(use, threads);
    size_t o = 0;
    for (const auto& output : binding.outputs()) {
      if (step.op == Op::gate_up_swiglu && o == 2) break;  // silu and y are no dot products
      if (first == 0) measured.push_back({output.name(), std::vector<float>(rows * cols)});
      for (size_t t = 0; t < unit.tokens; ++t)
        for (size_t r = 0; r < rows; ++r)
          measured[o].values[r * cols + first + t] = output.data()[t * rows + r] / kUnit;
      ++o;
    }
  }
  return measured;
}

Xray CompareWeights(const Case& step, const std::string& output, const std::vector<float>& got) {
  const bool is_up = output == "up";
  Xray x = {
      step.name + (step.w_up.data ? " " + output : ""), {}, is_up ? step.w_up : step.w, 0, {}};
  Diagnosis diagnosis(x.w, is_up ? step.w : step.w_up, got);
  x.wrong = diagnosis.wrong();
  x.findings = diagnosis.Findings();
  return x;
}

std::vector<Xray> XrayStep(const Case& step, const RowUse& use, int threads) {
  std::vector<Xray> xrays;
  for (const EffectiveWeights& e : MeasureWeights(step, use, threads)) {
    xrays.push_back(CompareWeights(step, e.output, e.values));
    xrays.back().use = use;
  }
  return xrays;
}

}  // namespace lab
