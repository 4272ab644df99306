#include "lab/diff_report.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "lab/error.h"
#include "lab/json.h"
#include "lab/names.h"
#include "lab/output.h"
#include "lab/table.h"

namespace lab {
namespace {

constexpr size_t kWorst = 12;  // places shown

std::string Where(const Compared& c) {
  const std::string path = TapPath(c.place.tap, c.place.layer);
  if (!c.pooled) return fmt::format("{} token {}", path, c.place.token);
  if (c.tokens.empty()) return path + " pooled";
  return fmt::format("{} pooled {}-{}", path, c.tokens.front(), c.tokens.back());
}

std::string Short(double x) {
  return fmt::format("{:.3g}", x);
}

// Paths and hashes by their two ends, so that the table stays on one screen.
std::string Ends(std::string_view text) {
  constexpr size_t kHead = 14, kTail = 24;
  if (text.size() <= kHead + kTail + 3) return Printable(text);
  return Printable(fmt::format("{}...{}", text.substr(0, kHead), text.substr(text.size() - kTail)));
}

std::string FieldsToText(const HeaderComparison& headers) {
  Table table({"header", "A", "B", ""});
  for (const HeaderField& f : headers.fields)
    table.Add({std::string(f.name), Ends(f.a), Ends(f.b), std::string(NameOf(f.agreement))});
  std::string text = table.ToText();
  for (const std::string& remark : headers.remarks) text += fmt::format("note: {}\n", remark);
  return text;
}

std::string RestToText(const std::vector<NotCompared>& rest) {
  if (rest.empty()) return "";
  std::map<std::string, std::vector<std::string>> by_reason;
  for (const NotCompared& n : rest) by_reason[n.why].push_back(TapPath(n.tap, n.layer));
  std::string text = "\nnot compared\n";
  for (const auto& [why, taps] : by_reason) {
    const auto shown = std::span(taps).first(std::min<size_t>(taps.size(), 4));
    text += fmt::format("  {}: {}{}\n", why, fmt::join(shown, " "),
                        taps.size() > shown.size() ? fmt::format(" ... ({})", taps.size()) : "");
  }
  return text;
}

Table PlacesTable(const RunComparison& c, size_t limit) {
  Table table({"worst first", "evidence", "std A", "std B", "distance >=", "allowed", "ratio",
               "channel", "verdict"});
  const std::vector<const Compared*> worst = WorstFirst(c);
  for (const Compared* p : std::span(worst).first(std::min(worst.size(), limit)))
    table.Add({Where(*p), p->by_value() ? "one value" : std::string(NameOf(p->distance.evidence)),
               p->std_a ? Short(*p->std_a) : "-", p->std_b ? Short(*p->std_b) : "-",
               fmt::format("{:.2e}", p->by_value() ? p->value_apart : p->distance.at_least),
               fmt::format("{:.2e}", p->by_value() ? p->value_allowed : p->allowed),
               fmt::format("{:.3f}", p->ratio()),
               p->distance.channel ? fmt::format("{}", *p->distance.channel) : "-",
               p->different()     ? "DIFFERENT"
               : p->distance.same ? "same"
                                  : "within"});
  return table;
}

// The method error of some places over their norm.
std::string CostText(std::vector<const Compared*> places) {
  const auto relative = [](const Compared* p) {
    return p->norm > 0 ? p->method_error / p->norm : 0;
  };
  std::sort(places.begin(), places.end(),
            [&](const Compared* a, const Compared* b) { return relative(a) < relative(b); });
  return fmt::format("{:.1e}, {:.1e} at {}", relative(places[places.size() / 2]),
                     relative(places.back()), Where(*places.back()));
}

// What the contract costs: at the token of the largest massive activation, and at the others.
std::string MethodToText(const RunComparison& c) {
  const Compared* massive = nullptr;
  for (const Compared& p : c.places)
    if (p.massive && !p.pooled && (!massive || *p.massive > *massive->massive)) massive = &p;
  std::vector<const Compared*> there, others;
  for (const Compared& p : c.places)
    (massive && !p.pooled && p.place.token == massive->place.token ? there : others).push_back(&p);
  std::string text = fmt::format(
      "method error of {} over the norm, median and largest of the places; {} times it is "
      "allowed\n",
      NameOf(c.contract), c.factor);
  if (massive)
    text += fmt::format("  token {}, massive ({:.3g} at {}): {}\n", massive->place.token,
                        *massive->massive, TapPath(massive->place.tap, massive->place.layer),
                        CostText(there));
  if (!others.empty())
    text +=
        fmt::format("  {}: {}\n", massive ? "the other tokens" : "all tokens", CostText(others));
  const auto blind =
      std::count_if(c.places.begin(), c.places.end(), [](const Compared& p) { return p.blind(); });
  if (blind > 0)
    text += fmt::format(
        "  at {} places as much is allowed as the row is long, so nothing is judged there: the "
        "contract\n  leaves no correct digit\n",
        blind);
  return text;
}

std::string SeedToText(const RunComparison& c) {
  const SeedCriterion seed = SeedOf(c);
  if (!seed.worst) return "";
  const bool differs = c.verdict() == RunVerdict::different;
  const std::string_view says = seed.says();
  const char* right = says == "unclear"            ? "decides nothing"
                      : (says == "bug") == differs ? "right"
                                                   : "wrong";
  return fmt::format(
      "rule of thumb (std 10x apart: bug, below 2x: normal): {:.4g}x at {}: \"{}\", {}\n",
      seed.ratio, Where(*seed.worst), says, right);
}

std::string EvidenceToText(const RunComparison& c) {
  std::string text = fmt::format("{} places compared", c.places.size());
  std::map<Evidence, size_t> counts;
  for (const Compared& p : c.places) ++counts[p.distance.evidence];
  for (const auto& [evidence, n] : counts) text += fmt::format(", {} by {}", n, NameOf(evidence));
  text += "\n";
  if (const auto blind = c.blind_below(); blind && c.verdict() != RunVerdict::different)
    text += fmt::format(
        "statistics do not show an error at a right angle to the values that is below {:.2g} of "
        "their norm (median);\n  tensors (--dump) or sketches (--trace-sketch) do\n",
        *blind);
  return text;
}

std::string ExplanationsToText(const DiffResult& r) {
  if (!r.explain_asked) return "";
  std::string text = "\nexplained\n";
  struct AsNamed {
    size_t taps = 0;
    double residual = 0;
  };
  std::map<std::pair<std::string, std::string>, AsNamed> as_named;  // by run and tokens
  for (const Explanation& e : r.explanations) {
    if (e.fits && e.as_named) {
      AsNamed& group = as_named[{e.run, e.tokens}];
      ++group.taps;
      group.residual = std::max(group.residual, e.residual);
      continue;
    }
    text += fmt::format("  {}: their `{}` is {}{}\n", e.run, InfoOf(e.tap).name,
                        e.fits ? "" : "not explained; closest: ", e.text);
    text += fmt::format("     off by {:.1e} of the norm (median of {} places, {}); {}", e.residual,
                        e.places, NameOf(e.evidence),
                        e.fits ? std::string(NameOf(e.sureness)) : "no reading fits");
    if (!e.runner_up.empty())
      text += fmt::format("\n     next best: {}, {:.1e}", e.runner_up, e.runner_up_residual);
    text += "\n";
  }
  for (const auto& [key, group] : as_named)
    text += fmt::format("  {}: {} taps are ours of that name{} (within {:.1e} of the norm)\n",
                        key.first, group.taps, key.second, group.residual);
  return text;
}

Json Optional(const std::optional<double>& x) {
  return x ? Number(*x) : Json();
}

std::string OracleText(const char* side, const std::optional<RunComparison>& c) {
  if (!c) return "";
  const Compared* first = c->first_different();
  return fmt::format("{} against the oracle of {}: {}\n", side, NameOf(c->contract),
                     c->places.empty()
                         ? fmt::format("nothing to compare: {}", c->headers.reasons.at(0))
                     : first ? fmt::format("different from {} on", Where(*first))
                             : "as it should be");
}

const Compared* FirstDifferent(const DiffResult& r) {
  const Compared* first = r.runs.first_different();
  for (const auto* oracle : {&r.a_oracle, &r.b_oracle}) {
    if (!*oracle) continue;
    const Compared* other = (*oracle)->first_different();
    if (other && (!first || other->place < first->place)) first = other;
  }
  return first;
}

std::string ToText(const DiffResult& r) {
  const RunComparison& c = r.runs;
  std::string text = fmt::format("A  {} ({})\nB  {} ({})\n\n", r.a->header.path, r.a->header.format,
                                 r.b->header.path, r.b->header.format);
  text += FieldsToText(c.headers);
  for (const auto& [name, run] : {std::pair("A", r.a), {"B", r.b}}) {
    if (run->report.unexplained > 0)
      text += fmt::format("note: {} lines or tensors of {} were not understood, the first: {}\n",
                          run->report.unexplained, name, run->report.first_of_them[0]);
    for (const std::string& remark : run->report.remarks)
      text += fmt::format("note: {}: {}\n", name, remark);
  }
  if (c.verdict() == RunVerdict::not_comparable) {
    text += "\nNOT COMPARABLE\n";
    for (const std::string& reason : c.headers.reasons) text += fmt::format("  {}\n", reason);
    return text + ExplanationsToText(r);
  }
  text += fmt::format("\n{}{}\n", PlacesTable(c, kWorst).ToText(), RestToText(c.rest));
  text += EvidenceToText(c) + MethodToText(c) + SeedToText(c) + OracleText("A", r.a_oracle) +
          OracleText("B", r.b_oracle) + ExplanationsToText(r);
  text += fmt::format("\nverdict: {}\n", VerdictText(r));
  if (const Compared* first = FirstDifferent(r))
    text += fmt::format("  there the distance is at least {:.2e}, {:.2e} is allowed\n",
                        first->by_value() ? first->value_apart : first->distance.at_least,
                        first->by_value() ? first->value_allowed : first->allowed);
  return text;
}

std::string ToJsonl(const DiffResult& r) {
  std::string out;
  const RunComparison& c = r.runs;
  for (const HeaderField& f : c.headers.fields)
    out += ToLine({{"kind", "header"},
                   {"field", f.name},
                   {"a", f.a},
                   {"b", f.b},
                   {"agreement", NameOf(f.agreement)}});
  for (const Compared& p : c.places)
    out += ToLine({{"kind", "tap"},
                   {"tap", InfoOf(p.place.tap).name},
                   {"layer", LayerToJson(p.place.layer)},
                   {"token", p.pooled ? Json() : Json(p.place.token)},
                   {"pooled", p.pooled},
                   {"evidence", NameOf(p.distance.evidence)},
                   {"std_a", Optional(p.std_a)},
                   {"std_b", Optional(p.std_b)},
                   {"at_least", Number(p.distance.at_least)},
                   {"at_most", Number(p.distance.at_most)},
                   {"method_error", Number(p.method_error)},
                   {"massive", Optional(p.massive)},
                   {"allowed", Number(p.allowed)},
                   {"value_apart", Number(p.value_apart)},
                   {"value_allowed", Number(p.value_allowed)},
                   {"ratio", Number(p.ratio())},
                   {"channel", p.distance.channel ? Json(*p.distance.channel) : Json()},
                   {"verdict", p.different()     ? "different"
                               : p.distance.same ? "same"
                                                 : "within"}});
  for (const NotCompared& n : c.rest)
    out += ToLine({{"kind", "not_compared"},
                   {"tap", InfoOf(n.tap).name},
                   {"layer", LayerToJson(n.layer)},
                   {"why", n.why}});
  const bool comparable = c.verdict() != RunVerdict::not_comparable;
  if (const SeedCriterion seed = SeedOf(c); comparable && seed.worst)
    out += ToLine({{"kind", "seed"},
                   {"ratio", Number(seed.ratio)},
                   {"place", Where(*seed.worst)},
                   {"says", seed.says()}});
  for (const Explanation& e : r.explanations)
    out += ToLine({{"kind", "explanation"},
                   {"run", e.run},
                   {"tap", InfoOf(e.tap).name},
                   {"is", e.text},
                   {"fits", e.fits},
                   {"as_named", e.as_named},
                   {"places", e.places},
                   {"residual", Number(e.residual)},
                   {"evidence", NameOf(e.evidence)},
                   {"sureness", NameOf(e.sureness)},
                   {"runner_up", e.runner_up},
                   {"runner_up_residual", Number(e.runner_up_residual)}});
  const Compared* first = FirstDifferent(r);
  return out + ToLine({{"kind", "summary"},
                       {"verdict", VerdictText(r)},
                       {"exit", DiffExitCode(r)},
                       {"places", c.places.size()},
                       {"contract", comparable ? Json(NameOf(c.contract)) : Json()},
                       {"contract_is_a_guess", c.contract_is_a_guess},
                       {"estimated", c.estimated},
                       {"first_different", first ? Json(Where(*first)) : Json()},
                       {"reasons", c.headers.reasons}});
}

}  // namespace

std::vector<const Compared*> WorstFirst(const RunComparison& c) {
  std::vector<const Compared*> worst;
  for (const Compared& place : c.places) worst.push_back(&place);
  std::stable_sort(worst.begin(), worst.end(), [](const Compared* a, const Compared* b) {
    return !(a->ratio() <= b->ratio());
  });
  return worst;
}

std::string VerdictText(const DiffResult& r) {
  const RunComparison& c = r.runs;
  const std::string estimated =
      c.estimated ? " (estimated: the table's tolerance; --model computes it)" : "";
  if (c.verdict() == RunVerdict::not_comparable) return "NOT COMPARABLE";
  if (const Compared* first = FirstDifferent(r); first && !c.first_different()) {
    const auto differs = [](const auto& oracle) { return oracle && oracle->first_different(); };
    const bool both = differs(r.a_oracle) && differs(r.b_oracle);
    return fmt::format(
        "A and B show no difference, but {} from the oracle of its contract, first at {}",
        both                  ? "both differ"
        : differs(r.a_oracle) ? "A differs"
                              : "B differs",
        Where(*first));
  }
  if (const Compared* first = FirstDifferent(r))
    return fmt::format("different from {} on, first at {}{}",
                       TapPath(first->place.tap, first->place.layer), Where(*first), estimated);
  if (c.verdict() == RunVerdict::identical)
    return c.weakest() >= Evidence::sketch ? "identical"
                                           : "identical, as far as the figures in the files go";
  const std::string guess = c.contract_is_a_guess ? ", if that is the contract of both" : "";
  if (c.contract == RunContract{Contract::f32, KvType::f32})
    return "within round-off" + guess + estimated;
  return fmt::format("within contract {}{}{}", NameOf(c.contract), guess, estimated);
}

int DiffExitCode(const DiffResult& r) {
  if (r.runs.verdict() == RunVerdict::not_comparable) return kNotComparable;
  return FirstDifferent(r) ? kNumericFailure : kPass;
}

std::string DiffTo(Format format, const DiffResult& r) {
  if (format == Format::text) return ToText(r);
  if (format == Format::jsonl) return ToJsonl(r);
  if (r.runs.verdict() == RunVerdict::not_comparable)
    throw Error(kNotComparable,
                fmt::format("NOT COMPARABLE: {}", fmt::join(r.runs.headers.reasons, "; ")));
  return PlacesTable(r.runs, r.runs.places.size()).To(format);
}

}  // namespace lab
