#include "lab/run_compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "lab/names.h"

namespace lab {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kFactor = 4, kFactorAcrossKv = 8;
constexpr double kSigmas = 5;

double Ratio(double apart, double allowed) {
  return apart == 0 ? 0 : apart / allowed;
}

std::string TokensText(const std::vector<size_t>& tokens) {
  if (tokens.empty()) return "an unknown set of tokens";
  if (tokens.size() == 1) return fmt::format("token {}", tokens[0]);
  const bool range = tokens.back() - tokens.front() + 1 == tokens.size();
  return range ? fmt::format("tokens {}-{}", tokens.front(), tokens.back())
               : fmt::format("tokens {}", fmt::join(tokens, " "));
}

// What one run has of a tap: positions of its own records, and those behind its pooled figure.
struct Held {
  std::vector<size_t> tokens;
  const PooledRecord* pooled = nullptr;

  std::string Text() const {
    if (tokens.empty() && !pooled) return "nothing";
    if (tokens.empty()) return TokensText(pooled->tokens.Read()) + " pooled";
    return TokensText(tokens);
  }
};
// By tap and layer (token 0), in the order of the pass.
std::map<Place, Held> HeldBy(const RunRecord& run) {
  std::map<Place, Held> held;
  for (const auto& [place, record] : run.tokens)
    held[{place.tap, place.layer, 0}].tokens.push_back(place.token);
  for (const auto& [key, pooled] : run.pooled) held[{key.second, key.first, 0}].pooled = &pooled;
  return held;
}

class Comparer {
 public:
  Comparer(const RunRecord& a, const RunRecord& b, const Transforms& how,
           const ReferenceRuns* reference)
      : a_(a), b_(b), how_(how), reference_(reference) {}

  RunComparison Run() {
    c_.headers = CompareHeaders(a_, b_, how_);
    if (!c_.headers.reasons.empty()) return std::move(c_);
    const auto held_a = HeldBy(a_), held_b = HeldBy(b_);
    for (const auto& [place, held] : held_a) {
      const auto other = held_b.find(place);
      CompareTap(place, held, other == held_b.end() ? Held() : other->second);
    }
    for (const auto& [place, held] : held_b)
      if (!held_a.contains(place)) CompareTap(place, Held(), held);
    if (c_.places.empty()) WhyNothing();
    ChooseContract();
    return std::move(c_);
  }

 private:
  template <class... A>
  void Leave(const Place& place, fmt::format_string<A...> why, A&&... args) {
    c_.rest.push_back({place.tap, place.layer, fmt::format(why, std::forward<A>(args)...), true});
  }

  // Up to five reasons.
  void WhyNothing() {
    std::vector<std::string>& reasons = c_.headers.reasons;
    for (const NotCompared& n : c_.rest)
      if (n.in_both && reasons.size() < 5 &&
          std::find(reasons.begin(), reasons.end(), n.why) == reasons.end())
        reasons.push_back(n.why);
    if (reasons.empty()) reasons.push_back("no tap is in both files");
  }

  void CompareTap(const Place& tap, const Held& a, const Held& b) {
    if (a.tokens.empty() && !a.pooled) return c_.rest.push_back({tap.tap, tap.layer, "only in B"});
    if (b.tokens.empty() && !b.pooled) return c_.rest.push_back({tap.tap, tap.layer, "only in A"});
    bool by_statistics = false;
    size_t compared = 0;
    std::vector<size_t> only_a, only_b;
    for (const size_t t : a.tokens) {
      const Place place = {tap.tap, tap.layer, t};
      if (!b_.tokens.contains(place)) {
        only_a.push_back(t);
      } else if (c_.headers.Includes(t)) {
        const size_t before = c_.places.size();
        Compare(FactsOf(a_.tokens.at(place), a_.header.std_kind),
                FactsOf(b_.tokens.at(place), b_.header.std_kind), place, {t}, false);
        compared += c_.places.size() - before;
        by_statistics |=
            c_.places.size() > before && c_.places.back().std_a && c_.places.back().std_b;
      }
    }
    for (const size_t t : b.tokens)
      if (!a_.tokens.contains({tap.tap, tap.layer, t})) only_b.push_back(t);
    if (!by_statistics && !c_.headers.only) compared += ComparePooled(tap, a, b);
    if (compared == 0)
      return Leave(tap, "A holds {}, B holds {}{}", a.Text(), b.Text(), Advice(a, b));
    if (!only_a.empty()) Leave(tap, "{} only in A", TokensText(only_a));
    if (!only_b.empty()) Leave(tap, "{} only in B", TokensText(only_b));
  }

  std::string Advice(const Held& a, const Held& b) const {
    const auto can_pool = [](const Held& apart, const Held& pool) {
      return !apart.tokens.empty() && pool.pooled &&
             apart.tokens.size() == pool.pooled->tokens.size() &&
             apart.tokens == pool.pooled->tokens.Read();
    };
    if (how_.pooled) return "";
    if (can_pool(a, b) || can_pool(b, a)) return "; --pooled pools them";
    const auto unknown = [](const Held& held) {
      return held.pooled && held.pooled->tokens.empty();
    };
    if (unknown(a) || unknown(b))
      return "; --pooled takes them for the same, --explain may tell which they are";
    return "";
  }

  // The tokens of `held` as one row, if that is what was asked for or what the file has.
  std::optional<std::pair<Facts, std::vector<size_t>>> Pooled(const RunRecord& run,
                                                              const Place& tap,
                                                              const Held& held) const {
    if (held.pooled)
      return std::pair(FactsOf(*held.pooled, run.header.std_kind), held.pooled->tokens.Read());
    if (!how_.pooled || held.tokens.empty()) return std::nullopt;
    std::vector<Facts> facts;
    std::vector<const Figures*> rows;
    for (const size_t t : held.tokens)
      facts.push_back(FactsOf(run.tokens.at({tap.tap, tap.layer, t}), run.header.std_kind));
    // Pooling is of the population's std.
    const StdKind kind = run.header.std_kind.value_or(StdKind::population);
    for (Facts& f : facts) {
      ConvertStd(f.figures, kind, StdKind::population);
      rows.push_back(&f.figures);
    }
    Figures pool = PoolFigures(rows);
    ConvertStd(pool, StdKind::population, kind);
    return std::pair(Facts{std::move(pool), {}, {}, {}}, held.tokens);
  }

  size_t ComparePooled(const Place& tap, const Held& a, const Held& b) {
    auto x = Pooled(a_, tap, a), y = Pooled(b_, tap, b);
    if (!x || !y) return 0;
    const bool known = !x->second.empty() && !y->second.empty();
    // Pools of unknown tokens are taken for the same ones only if the user says so: a pool with
    // the massive token beside one without it was once called a bug of 18x.
    if (known ? x->second != y->second : !how_.pooled) return 0;
    const size_t before = c_.places.size();
    Compare(std::move(x->first), std::move(y->first), tap,
            known ? x->second : std::vector<size_t>(), true);
    return c_.places.size() - before;
  }

  void Compare(Facts a, Facts b, Place place, std::vector<size_t> tokens, bool pooled) {
    ReconcileStd(a.figures, b.figures);
    Compared c;
    c.place = place;
    if (!tokens.empty()) c.place.token = tokens.front();
    c.tokens = std::move(tokens);
    c.pooled = pooled;
    c.distance = DistanceOf(a, b);
    if (c.distance.evidence == Evidence::nothing) return Leave(place, "no figure in both");
    const auto norm = SmallerNorm(a, b);
    c.norm = norm && std::isfinite(*norm) ? *norm : 0;  // nothing to measure by: nothing is allowed
    if (a.figures.std) c.std_a = a.figures.std->value;
    if (b.figures.std) c.std_b = b.figures.std->value;
    for (const Facts* f : {&a, &b})
      if (IsMassive(f->figures))
        c.massive = std::max(c.massive.value_or(0), f->figures.absmax->value);
    if (c.distance.evidence == Evidence::values) KeepValues(a, b);
    c_.places.push_back(std::move(c));
  }

  // One kind of std: converted if the user says so; where one side is silent, both are possible.
  void ReconcileStd(Figures& a, Figures& b) const {
    const auto &kind_a = a_.header.std_kind, &kind_b = b_.header.std_kind;
    if (!a.n) a.n = b.n;
    if (!b.n) b.n = a.n;
    if (kind_a && kind_b) return ConvertStd(b, *kind_b, *kind_a);
    WidenStd(a);
  }

  // Differences of single values, kept until the tolerance is known.
  void KeepValues(const Facts& a, const Facts& b) {
    std::vector<std::pair<size_t, Value>>& list = values_[c_.places.size()];
    for (const auto& [channel, x] : a.values) AddValue(channel, x, b, list);
    if (a.values.empty())
      for (const auto& [channel, x] : b.values) AddValue(channel, x, a, list);
    const auto n = a.figures.n ? a.figures.n : b.figures.n;
    widths_[c_.places.size()] = n.value_or(1);
  }
  struct Value {
    double apart, size;
  };
  static void AddValue(size_t channel, const Figure& x, const Facts& other,
                       std::vector<std::pair<size_t, Value>>& list) {
    std::optional<Figure> y;
    if (const auto it = other.values.find(channel); it != other.values.end()) y = it->second;
    if (channel < other.row.size()) y = Figure{other.row[channel], 0};
    if (!y) return;
    const double apart = std::abs(x.value - y->value) - x.rounding - y->rounding;
    list.push_back(
        {channel, {std::max(0.0, apart), std::min(std::abs(x.value), std::abs(y->value))}});
  }

  void ChooseContract() {
    const auto a = ContractOf(a_.header), b = ContractOf(b_.header);
    c_.contract_is_a_guess = !a || !b;
    const bool same_kv = a && b ? a->kv == b->kv : true;
    c_.factor = same_kv ? kFactor : kFactorAcrossKv;
    for (const RunContract& c : CandidateContracts(a, b)) {
      c_.contract = c;
      Allow();
      if (!c_.first_different()) return;
    }
  }

  double MethodError(const Compared& c) {
    double squares = 0;
    for (const size_t token : c.tokens) {
      const auto error =
          reference_ ? reference_->MethodError(c_.contract, {c.place.tap, c.place.layer, token})
                     : std::nullopt;
      if (!error) {
        squares = -1;
        break;
      }
      squares += *error * *error;
    }
    if (!c.tokens.empty() && squares >= 0) return std::sqrt(squares);
    c_.estimated = true;
    const bool has_first = c.tokens.empty() || c.tokens.front() == 0;
    return EstimatedMethodError(c_.contract, c.place.tap, has_first, c.norm);
  }

  void Allow() {
    c_.estimated = false;
    for (size_t i = 0; i < c_.places.size(); ++i) {
      Compared& c = c_.places[i];
      const double error = c.method_error = MethodError(c);
      c.allowed = c_.factor * error;
      c.value_apart = c.value_allowed = 0;
      const auto values = values_.find(i);
      if (values == values_.end()) continue;
      const double sigma = error / std::sqrt(static_cast<double>(widths_[i]));
      for (const auto& [channel, value] : values->second) {
        const double allowed = c_.factor * ChannelError(c, channel, value, error) + kSigmas * sigma;
        if (Ratio(value.apart, allowed) <= Ratio(c.value_apart, c.value_allowed)) continue;
        c.value_apart = value.apart, c.value_allowed = allowed;
        c.distance.channel = channel;
      }
    }
  }

  // What the contract costs at one channel.
  double ChannelError(const Compared& c, size_t channel, const Value& value, double error) const {
    const Place place = {c.place.tap, c.place.layer, c.place.token};
    if (reference_ && reference_->Has(c_.contract, place)) {
      const auto at = [&](const RunRecord& run) { return run.tokens.at(place).row->At(channel); };
      return std::abs(at(reference_->oracle(c_.contract)) - at(reference_->exact()));
    }
    return c.norm > 0 ? error / c.norm * value.size : 0;
  }

  const RunRecord &a_, &b_;
  const Transforms& how_;
  const ReferenceRuns* reference_;
  RunComparison c_;
  std::map<size_t, std::vector<std::pair<size_t, Value>>> values_;  // by index of places
  std::map<size_t, uint64_t> widths_;
};

}  // namespace

double Compared::ratio() const {
  if (!std::isfinite(allowed)) return kInfinity;
  return std::max(Ratio(distance.at_least, allowed), Ratio(value_apart, value_allowed));
}

bool Compared::by_value() const {
  return Ratio(value_apart, value_allowed) > Ratio(distance.at_least, allowed);
}

const Compared* RunComparison::first_different() const {
  const auto it =
      std::find_if(places.begin(), places.end(), [](const Compared& c) { return c.different(); });
  return it == places.end() ? nullptr : &*it;
}

RunVerdict RunComparison::verdict() const {
  if (places.empty()) return RunVerdict::not_comparable;
  if (first_different()) return RunVerdict::different;
  const bool same =
      std::all_of(places.begin(), places.end(), [](const Compared& c) { return c.distance.same; });
  return same ? RunVerdict::identical : RunVerdict::within;
}

Evidence RunComparison::weakest() const {
  Evidence weakest = Evidence::tensors;
  for (const Compared& c : places) weakest = std::min(weakest, c.distance.evidence);
  return weakest;
}

std::optional<double> RunComparison::blind_below() const {
  std::vector<double> limits;
  for (const Compared& c : places)
    if (c.distance.evidence < Evidence::sketch && c.norm > 0)
      limits.push_back(std::sqrt(2 * c.allowed / c.norm));
  if (limits.empty()) return std::nullopt;
  std::nth_element(limits.begin(), limits.begin() + limits.size() / 2, limits.end());
  return limits[limits.size() / 2];
}

std::string_view SeedCriterion::says() const {
  return ratio >= 10 ? "bug" : ratio < 2 ? "normal" : "unclear";
}

SeedCriterion SeedOf(const RunComparison& comparison) {
  SeedCriterion seed;
  for (const Compared& c : comparison.places) {
    if (!c.std_a || !c.std_b) continue;
    const double low = std::min(*c.std_a, *c.std_b), high = std::max(*c.std_a, *c.std_b);
    const double ratio = high == 0 ? 1 : high / low;
    if (seed.worst && !(ratio > seed.ratio)) continue;
    seed.worst = &c;
    seed.ratio = ratio;
  }
  return seed;
}

RunComparison CompareRuns(const RunRecord& a, const RunRecord& b, const Transforms& how,
                          const ReferenceRuns* reference) {
  return Comparer(a, b, how, reference).Run();
}

}  // namespace lab
