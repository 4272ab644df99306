#include "lab/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "lab/names.h"
#include "lab/retappings.h"
#include "lab/run_headers.h"

namespace lab {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr size_t kSample = 8;  // places on which a reading must fit before all are looked at

// One place of theirs.
struct Target {
  int layer;
  std::vector<size_t> tokens;  // one; or all that are pooled; empty: unknown
  bool pooled;
  Facts facts;
};

// Which of our tokens stand for a target.
enum class TokenSet { named, all, last, first, rest };
constexpr TokenSet kTokenSets[] = {TokenSet::named, TokenSet::all, TokenSet::last, TokenSet::first,
                                   TokenSet::rest};
enum class StdMeaning { plain, sample, rms };
constexpr StdMeaning kMeanings[] = {StdMeaning::plain, StdMeaning::sample, StdMeaning::rms};

struct Reading {
  const Retapping* source;
  TokenSet tokens;
  StdMeaning meaning;
  // How many things differ from the plain reading.
  int changes() const {
    return (source->plain ? 0 : 1) + (tokens != TokenSet::named) + (meaning != StdMeaning::plain);
  }
};

struct Fit {
  Reading reading;
  double worst = 0;     // distance / allowed
  double residual = 0;  // median of distance / norm
  size_t places = 0;
  Evidence evidence = Evidence::nothing;
};

std::vector<size_t> Positions(size_t n) {
  std::vector<size_t> all(n);
  for (size_t t = 0; t < n; ++t) all[t] = t;
  return all;
}

class Explainer {
 public:
  Explainer(const RunRecord& ours, const RunRecord& theirs, const RunContract& contract,
            const Qwen2Config* config)
      : ours_(ours),
        theirs_(theirs),
        contract_(contract),
        config_(config),
        positions_(Positions(LastToken(ours).value_or(0) + 1)) {}

  Explanation Explain(Tap tap, const std::vector<Target>& targets) {
    figures_only_ = std::all_of(targets.begin(), targets.end(), [](const Target& t) {
      return t.facts.row.empty() && t.facts.values.empty() && !t.facts.sketch;
    });
    const std::vector<Retapping> sources = RetappingsOf(tap, ours_, config_, figures_only_);
    std::vector<Fit> fits, misses;
    // Two changes at once are tried only where none and one explain nothing.
    for (int changes = 0; changes <= (fits.empty() ? 2 : 1); ++changes)
      for (const Retapping& source : sources)
        for (const TokenSet tokens : kTokenSets)
          for (const StdMeaning meaning : kMeanings) {
            const Reading reading = {&source, tokens, meaning};
            if (reading.changes() != changes || Redundant(reading, targets)) continue;
            const Fit fit = Try(tap, reading, targets);
            if (fit.places > 0) (fit.worst <= 1 ? fits : misses).push_back(fit);
          }
    return Report(tap, std::move(fits), std::move(misses), targets);
  }

 private:
  // Tokens of ours that a reading takes for a target.
  std::vector<size_t> TokensOf(TokenSet set, const Target& target) const {
    switch (set) {
      case TokenSet::named:
        return target.tokens.empty() ? positions_ : target.tokens;
      case TokenSet::all:
        return positions_;
      case TokenSet::last:
        return {positions_.back()};
      case TokenSet::first:
        return {0};
      case TokenSet::rest:
        return {positions_.begin() + 1, positions_.end()};
    }
    return {};
  }

  bool Redundant(const Reading& r, const std::vector<Target>& targets) const {
    // Figures of a pool of all tokens do not know the order of its values.
    if (r.source->same_pool && figures_only_ &&
        std::all_of(targets.begin(), targets.end(),
                    [&](const Target& t) { return TokensOf(r.tokens, t) == positions_; }))
      return true;
    if (r.tokens == TokenSet::named) return false;
    if (r.tokens == TokenSet::rest && positions_.size() < 2) return true;
    return std::all_of(targets.begin(), targets.end(), [&](const Target& t) {
      return TokensOf(r.tokens, t) == TokensOf(TokenSet::named, t);
    });
  }

  // Our facts under a reading.
  std::optional<Facts> Make(const Reading& r, const Target& target) const {
    const std::vector<size_t> tokens = TokensOf(r.tokens, target);
    std::vector<Facts> rows;
    for (const size_t t : tokens) {
      auto facts = r.source->make(target.layer, t);
      if (!facts) return std::nullopt;
      rows.push_back(std::move(*facts));
    }
    if (rows.empty()) return std::nullopt;
    Facts facts;
    if (rows.size() == 1) {
      facts = std::move(rows[0]);
    } else {
      std::vector<const Figures*> figures;
      for (const Facts& row : rows) figures.push_back(&row.figures);
      facts.figures = PoolFigures(figures);
    }
    Figures& f = facts.figures;
    const StdKind own = theirs_.header.std_kind.value_or(StdKind::population);
    ConvertStd(f, StdKind::population, r.meaning == StdMeaning::sample ? StdKind::sample : own);
    if (r.meaning == StdMeaning::rms) f.std = f.rms;
    if (figures_only_) facts.row.clear();
    return facts;
  }

  Fit Try(Tap tap, const Reading& reading, const std::vector<Target>& targets) const {
    Fit fit = {reading, 0, 0, 0, Evidence::nothing};
    std::vector<double> residuals;
    const auto look = [&](const Target& target) {
      const auto facts = Make(reading, target);
      if (!facts) return;
      Facts theirs = target.facts;
      // rms and l2 that were derived from their std would say what it says once more.
      if (reading.meaning != StdMeaning::plain) theirs.figures.rms = theirs.figures.l2 = {};
      const Distance d = DistanceOf(*facts, theirs);
      const double norm = SmallerNorm(*facts, *facts).value_or(0);
      if (d.evidence == Evidence::nothing) return;
      const bool has_first = TokensOf(reading.tokens, target).front() == 0;
      const double allowed = 4 * EstimatedMethodError(contract_, tap, has_first, norm);
      const double ratio = d.at_least == 0 ? 0 : d.at_least / allowed;
      fit.worst = std::max(fit.worst, ratio);
      fit.evidence = std::max(fit.evidence, d.evidence);
      residuals.push_back(norm > 0 ? d.at_least / norm : d.at_least > 0 ? kInfinity : 0);
    };
    const size_t step = std::max<size_t>(1, targets.size() / kSample);
    for (size_t i = 0; i < targets.size(); i += step) look(targets[i]);
    if (fit.worst <= 1)
      for (size_t i = 0; i < targets.size(); ++i)
        if (i % step) look(targets[i]);
    fit.places = residuals.size();
    if (residuals.empty()) return fit;
    const auto middle = residuals.begin() + static_cast<ptrdiff_t>(residuals.size() / 2);
    std::nth_element(residuals.begin(), middle, residuals.end());
    fit.residual = *middle;
    return fit;
  }

  std::string TokensText(const Reading& r, const std::vector<Target>& targets) const {
    const std::vector<size_t> tokens = TokensOf(r.tokens, targets.front());
    if (tokens.size() > 1)
      return fmt::format(", pooled over tokens {}-{}", tokens.front(), tokens.back());
    if (targets.size() == 1 || r.tokens != TokenSet::named || SameTokens(targets))
      return fmt::format(", of token {} alone", tokens.front());
    return "";
  }

  std::string Text(const Reading& r, const std::vector<Target>& targets) const {
    std::string text = r.source->text + TokensText(r, targets);
    if (r.meaning == StdMeaning::sample) text += ", its std the sample's (n - 1)";
    if (r.meaning == StdMeaning::rms) text += ", its std the root mean square";
    return text;
  }

  static bool SameTokens(const std::vector<Target>& targets) {
    return std::all_of(targets.begin(), targets.end(),
                       [&](const Target& t) { return t.tokens == targets.front().tokens; });
  }

  Explanation Report(Tap tap, std::vector<Fit> fits, std::vector<Fit> misses,
                     const std::vector<Target>& targets) const {
    Explanation e;
    e.tap = tap;
    e.fits = !fits.empty();
    const auto closer = [](const Fit& x, const Fit& y) { return x.residual < y.residual; };
    std::stable_sort(fits.begin(), fits.end(), closer);
    // The plain reading stands unless another is ten times closer.
    const auto plain = std::find_if(fits.begin(), fits.end(),
                                    [](const Fit& f) { return f.reading.changes() == 0; });
    if (plain != fits.end() && plain->residual <= 10 * fits[0].residual)
      std::rotate(fits.begin(), plain, plain + 1);
    std::stable_sort(misses.begin(), misses.end(), closer);
    fits.insert(fits.end(), misses.begin(), misses.end());
    if (fits.empty()) {
      e.text = "nothing that our run holds";
      return e;
    }
    const Fit& best = fits[0];
    e.text = Text(best.reading, targets);
    e.tokens = TokensText(best.reading, targets);
    e.as_named = best.reading.source->plain && best.reading.tokens == TokenSet::named &&
                 best.reading.meaning == StdMeaning::plain;
    e.places = best.places;
    e.residual = best.residual;
    e.evidence = best.evidence;
    if (fits.size() > 1) {
      e.runner_up = Text(fits[1].reading, targets);
      e.runner_up_residual = fits[1].residual;
    }
    const bool alone = fits.size() < 2 || fits[1].residual > 10 * std::max(best.residual, 1e-9);
    if (e.fits && alone && best.evidence == Evidence::tensors)
      e.sureness = Sureness::certain;
    else if (e.fits && alone)
      e.sureness = Sureness::likely;
    return e;
  }

  const RunRecord &ours_, &theirs_;
  RunContract contract_;
  const Qwen2Config* config_;
  std::vector<size_t> positions_;
  bool figures_only_ = false;
};

}  // namespace

std::string_view NameOf(Sureness sureness) {
  constexpr std::string_view kNames[] = {"certain", "likely", "possible"};
  return kNames[static_cast<size_t>(sureness)];
}

std::vector<Explanation> ExplainRun(const RunRecord& ours, const RunRecord& theirs,
                                    const RunContract& contract, const Qwen2Config* config) {
  std::map<Tap, std::vector<Target>> targets;
  const size_t known = LastToken(ours).value_or(0) + 1;
  const auto& kind = theirs.header.std_kind;
  for (const auto& [place, record] : theirs.tokens)
    if (place.token < known)
      targets[place.tap].push_back({place.layer, {place.token}, false, FactsOf(record, kind)});
  for (const auto& [key, record] : theirs.pooled) {
    // Pooled figures add nothing where the tokens are there one by one.
    const auto it = theirs.tokens.lower_bound({key.second, key.first, 0});
    const bool apart = it != theirs.tokens.end() && it->first.tap == key.second &&
                       it->first.layer == key.first && it->second.figures.std;
    if (!apart)
      targets[key.second].push_back({key.first, record.tokens.Read(), true, FactsOf(record, kind)});
  }
  std::vector<Explanation> explanations;
  Explainer explainer(ours, theirs, contract, config);
  for (const auto& [tap, list] : targets) explanations.push_back(explainer.Explain(tap, list));
  return explanations;
}

}  // namespace lab
