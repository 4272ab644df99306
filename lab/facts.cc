#include "lab/facts.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "lab/sketch.h"

namespace lab {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// |a - b| less what rounding may have made of it.
double Apart(const Figure& a, const Figure& b) {
  return std::max(0.0, std::abs(a.value - b.value) - a.rounding - b.rounding);
}

// Gathers the bounds of a pair.
class Bounds {
 public:
  void Add(double at_least, Evidence evidence, std::optional<size_t> channel = std::nullopt) {
    d_.evidence = std::max(d_.evidence, evidence);
    if (!(at_least <= 0)) d_.same = false;
    if (!(at_least > d_.at_least)) return;
    d_.at_least = at_least;
    if (channel) d_.channel = channel;
  }
  // Of a figure; one that is not finite on one side alone is a difference.
  bool Comparable(const std::optional<Figure>& a, const std::optional<Figure>& b) {
    if (!a || !b) return false;
    const bool finite_a = std::isfinite(a->value), finite_b = std::isfinite(b->value);
    if (finite_a != finite_b) Add(kInfinity, Evidence::statistics);
    return finite_a && finite_b;
  }
  // Of single values, the one that is farthest apart names the channel.
  void AddValue(double apart, size_t channel) {
    if (!(apart > largest_value_)) return;
    largest_value_ = apart;
    d_.channel = channel;
  }
  Distance& distance() { return d_; }

 private:
  Distance d_;
  double largest_value_ = 0;
};

void AddStatistics(const Figures& a, const Figures& b, Bounds& bounds) {
  const auto known_n = a.n ? a.n : b.n;
  const double n = known_n ? static_cast<double>(*known_n) : 1;
  const auto add = [&](const std::optional<Figure>& x, const std::optional<Figure>& y,
                       double scale) {
    if (bounds.Comparable(x, y)) bounds.Add(scale * Apart(*x, *y), Evidence::statistics);
  };
  double mean = 0;
  if (bounds.Comparable(a.mean, b.mean)) mean = Apart(*a.mean, *b.mean);
  add(a.mean, b.mean, std::sqrt(n));
  if (bounds.Comparable(a.std, b.std))
    bounds.Add(std::sqrt(n) * std::hypot(mean, Apart(*a.std, *b.std)), Evidence::statistics);
  add(a.rms, b.rms, std::sqrt(n));
  if (!known_n) return;
  add(a.l2, b.l2, 1);
  add(a.sum, b.sum, 1 / std::sqrt(n));
  add(a.absmax, b.absmax, 1);
  add(a.min, b.min, 1);
  add(a.max, b.max, 1);
}

// Known values against known values, or against the range of the other row.
void AddValues(const Facts& a, const Facts& b, Bounds& bounds) {
  double squares = 0;
  for (const auto& [channel, x] : a.values) {
    const auto other = b.values.find(channel);
    std::optional<Figure> y;
    if (other != b.values.end()) y = other->second;
    if (channel < b.row.size()) y = Figure{b.row[channel], 0};
    double apart = 0;
    if (y) {
      if (std::isfinite(x.value) != std::isfinite(y->value)) apart = kInfinity;
      if (std::isfinite(x.value) && std::isfinite(y->value)) apart = Apart(x, *y);
      squares += apart * apart;
      bounds.Add(std::sqrt(squares), Evidence::values);
      bounds.distance().at_most = kInfinity;
    } else if (b.figures.min && b.figures.max) {
      apart = std::max(b.figures.min->value - b.figures.min->rounding - x.value - x.rounding,
                       x.value - x.rounding - b.figures.max->value - b.figures.max->rounding);
      bounds.Add(std::max(apart, 0.0), Evidence::values);
    }
    bounds.AddValue(apart, channel);
  }
}

void AddSketches(const Sketch& a, const Sketch& b, Bounds& bounds) {
  Distance& d = bounds.distance();
  if (a.hash == b.hash) {
    d.at_most = 0;
    bounds.Add(0, Evidence::sketch);
    return;
  }
  const SketchDistance estimate = DistanceOf(a, b);
  bounds.Add(estimate.at_least, Evidence::sketch);
  d.same = false;
  d.at_most = std::min(d.at_most, estimate.at_most);
}

Distance TensorDistance(const std::vector<double>& a, const std::vector<double>& b) {
  Distance d;
  double largest = 0, squares = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const bool finite = std::isfinite(a[i]);
    if (!finite && !std::isfinite(b[i])) continue;
    const double apart = finite && std::isfinite(b[i]) ? std::abs(a[i] - b[i]) : kInfinity;
    squares += apart * apart;
    d.evidence = Evidence::tensors;
    if (apart > largest) largest = apart, d.channel = i;
  }
  d.at_least = d.at_most = std::sqrt(squares);
  d.same = squares == 0;
  return d;
}

}  // namespace

std::string_view NameOf(Evidence evidence) {
  constexpr std::string_view kNames[] = {"nothing", "statistics", "values", "sketch", "tensors"};
  return kNames[static_cast<size_t>(evidence)];
}

void Complete(Figures& f, std::optional<StdKind> kind) {
  const auto square = [](const Figure& x) { return x.value * x.value; };
  if (!f.rms && f.mean && f.std && (kind == StdKind::population || f.n)) {
    Figures population = f;
    if (kind)
      ConvertStd(population, *kind, StdKind::population);
    else
      WidenStd(population);
    const Figure& std = *population.std;
    const double rms = std::sqrt(square(*f.mean) + square(std));
    // An absolute rounding of both moves the root of their squares by no more than its own size.
    f.rms = Figure{rms, std::hypot(f.mean->rounding, std.rounding)};
  }
  if (!f.n && f.l2 && f.rms && f.rms->value > 0)
    f.n = static_cast<uint64_t>(std::llround(square(*f.l2) / square(*f.rms)));
  if (!f.n) return;
  const auto n = static_cast<double>(*f.n);
  if (!f.l2 && f.rms) f.l2 = Figure{std::sqrt(n) * f.rms->value, std::sqrt(n) * f.rms->rounding};
  if (!f.rms && f.l2) f.rms = Figure{f.l2->value / std::sqrt(n), f.l2->rounding / std::sqrt(n)};
  if (!f.sum && f.mean) f.sum = Figure{n * f.mean->value, n * f.mean->rounding};
  if (!f.mean && f.sum) f.mean = Figure{f.sum->value / n, f.sum->rounding / n};
}

void ConvertStd(Figures& f, StdKind from, StdKind to) {
  if (from == to || !f.std || !f.n || *f.n < 2) return;
  const auto n = static_cast<double>(*f.n);
  const double factor = std::sqrt(to == StdKind::sample ? n / (n - 1) : (n - 1) / n);
  f.std = Figure{f.std->value * factor, f.std->rounding * factor};
}

void WidenStd(Figures& f) {
  if (f.std && f.n && *f.n > 1)
    f.std->rounding += f.std->value / (2 * static_cast<double>(*f.n - 1));
}

Facts FactsOf(const TokenRecord& record, std::optional<StdKind> kind) {
  Facts facts = {record.figures, record.values, {}, record.sketch};
  if (record.row) facts.row = record.row->Read();
  Complete(facts.figures, kind);
  return facts;
}

Facts FactsOf(const PooledRecord& record, std::optional<StdKind> kind) {
  Facts facts = {record.figures, {}, {}, {}};
  Complete(facts.figures, kind);
  return facts;
}

Facts FactsOf(std::vector<double> row) {
  Facts facts;
  facts.figures = FiguresOf(ComputeStats(row.data(), row.size()));
  facts.row = std::move(row);
  return facts;
}

bool IsMassive(const Figures& f) {
  if (!f.absmax || !f.l2) return false;
  Stats s;
  s.absmax = f.absmax->value, s.l2 = f.l2->value;
  return s.massive();
}

Figures PoolFigures(std::span<const Figures* const> rows) {
  std::vector<Stats> stats(rows.size());
  std::vector<const Stats*> pointers;
  Figures all;  // a figure is set where every row has it
  const auto every = [&](auto member) {
    return std::all_of(rows.begin(), rows.end(), [&](const Figures* f) { return f->*member; });
  };
  for (size_t i = 0; i < rows.size(); ++i) {
    const Figures& f = *rows[i];
    const auto value = [&](const std::optional<Figure>& x) { return x ? x->value : 0; };
    Stats& s = stats[i];
    s.n = f.n.value_or(1), s.nan = f.nan.value_or(0), s.inf = f.inf.value_or(0);
    s.zeros = f.zeros.value_or(0), s.argmax = f.argmax.value_or(0);
    s.min = value(f.min), s.max = value(f.max), s.mean = value(f.mean), s.std = value(f.std);
    s.rms = value(f.rms), s.absmax = value(f.absmax), s.l2 = value(f.l2);
    pointers.push_back(&s);
  }
  const Stats pooled = Pool(pointers);
  // An extreme or a mean moves by no more than the most that one row does, l2 by all together.
  const auto rounding = [&](auto member) {
    double largest = 0;
    for (const Figures* f : rows) largest = std::max(largest, (f->*member)->rounding);
    return largest;
  };
  const auto squared_roundings = [&] {
    double sum = 0;
    for (const Figures* f : rows) sum += f->l2->rounding * f->l2->rounding;
    return sum;
  };
  if (every(&Figures::n)) all.n = pooled.n;
  if (every(&Figures::nan)) all.nan = pooled.nan;
  if (every(&Figures::inf)) all.inf = pooled.inf;
  if (every(&Figures::min)) all.min = Figure{pooled.min, rounding(&Figures::min)};
  if (every(&Figures::max)) all.max = Figure{pooled.max, rounding(&Figures::max)};
  if (every(&Figures::absmax)) all.absmax = Figure{pooled.absmax, rounding(&Figures::absmax)};
  if (every(&Figures::l2)) all.l2 = Figure{pooled.l2, std::sqrt(squared_roundings())};
  if (!every(&Figures::n) && rows.size() > 1) return all;  // the weights are unknown
  if (every(&Figures::mean)) all.mean = Figure{pooled.mean, rounding(&Figures::mean)};
  // The root of the mean of std^2 + (mean - pooled mean)^2, of which the second is off twice.
  if (all.mean && every(&Figures::std))
    all.std = Figure{pooled.std, rounding(&Figures::std) + 2 * all.mean->rounding};
  Complete(all);
  return all;
}

Distance DistanceOf(const Facts& a, const Facts& b) {
  if (!a.row.empty() && !b.row.empty()) {
    if (a.row.size() == b.row.size()) return TensorDistance(a.row, b.row);
    return {kInfinity, kInfinity, Evidence::tensors, false, std::nullopt};
  }
  Bounds bounds;
  bounds.distance().at_most = kInfinity;
  if (a.figures.n && b.figures.n && a.figures.n != b.figures.n)
    bounds.Add(kInfinity, Evidence::statistics);
  AddStatistics(a.figures, b.figures, bounds);
  AddValues(a, b, bounds);
  AddValues(b, a, bounds);
  const auto sketch = [](const Facts& f) {
    return f.sketch || f.row.empty() ? f.sketch
                                     : std::optional(MakeSketch(f.row.data(), f.row.size()));
  };
  if (a.sketch || b.sketch) {
    const auto sketch_a = sketch(a), sketch_b = sketch(b);
    if (sketch_a && sketch_b) AddSketches(*sketch_a, *sketch_b, bounds);
  }
  return bounds.distance();
}

std::optional<double> SmallerNorm(const Facts& a, const Facts& b) {
  const auto n = a.figures.n ? a.figures.n : b.figures.n;
  const double root = n ? std::sqrt(static_cast<double>(*n)) : 1;
  using Measure = std::function<std::optional<double>(const Facts&)>;
  const auto rms_like = [root](std::optional<Figure> Figures::*member) -> Measure {
    return [root, member](const Facts& f) -> std::optional<double> {
      const auto& figure = f.figures.*member;
      return figure ? std::optional(std::abs(figure->value) * root) : std::nullopt;
    };
  };
  const Measure l2 = [](const Facts& f) -> std::optional<double> {
    return f.figures.l2 ? std::optional(f.figures.l2->value) : std::nullopt;
  };
  const Measure values = [root](const Facts& f) -> std::optional<double> {
    if (f.values.empty()) return std::nullopt;
    double squares = 0;
    for (const auto& [channel, x] : f.values) squares += x.value * x.value;
    return root * std::sqrt(squares / static_cast<double>(f.values.size()));
  };
  const Measure absmax = [](const Facts& f) -> std::optional<double> {
    return f.figures.absmax ? std::optional(f.figures.absmax->value) : std::nullopt;
  };
  for (const Measure& measure :
       {n ? l2 : rms_like(&Figures::rms), rms_like(&Figures::rms), rms_like(&Figures::std), values,
        absmax, rms_like(&Figures::mean)}) {
    const auto x = measure(a), y = measure(b);
    if (x && y) return std::min(*x, *y);
    if (x || y) return x ? x : y;
  }
  return std::nullopt;
}

}  // namespace lab
