#include "lab/use.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "lab/device.h"
#include "lab/error.h"
#include "lab/names.h"

namespace lab {
namespace {

std::optional<int> ToLayer(std::string_view text) {
  int layer = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), layer);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && layer >= 0 ? std::optional(layer) : std::nullopt;
}

const Row& ParseRow(Op op, Contract contract, std::string_view name, const std::string& what) {
  std::vector<std::string_view> names;
  const Row* found = nullptr;  // of this contract if the function has several
  for (const Row& row : Rows()) {
    if (row.op != op || row.backend == Backend::oracle) continue;  // float64, fits no float pass
    const bool fits = row.function == name && WhyNotHere(row).empty();
    if (fits && (!found || row.contract == contract)) found = &row;
    names.push_back(row.function);
  }
  if (found) return *found;
  for (const Backend backend : {Backend::ref, Backend::hwy, Backend::cuda, Backend::cuda_host}) {
    if (NameOf(backend) != name) continue;
    const Row* row = FindRow(op, contract, backend);
    if (!row) row = FindRow(op, Contract::f32, backend);
    if (row && WhyNotHere(*row).empty()) return *row;
  }
  IndexOfName(names, name, what);
  throw Error(kCannotRun,
              fmt::format("{}: that row cannot run here; 'lab list kernels' says why", what));
}

UseRule ParseRule(const std::string& text, Contract contract, size_t layers) {
  const std::string what = "--use " + Printable(text);
  const size_t equals = text.find('='), at = text.find('@');
  if (equals == std::string::npos) Fail("{}: expected OP[@LAYERS]=ROW or =mutant:NAME", what);
  UseRule rule;
  rule.text = text;
  const bool has_layers = at < equals;
  rule.op = ParseOp(text.substr(0, has_layers ? at : equals), what);
  if (has_layers && layers == 0)
    Fail("{}: there are no layers to choose here; leave out the @", what);
  if (has_layers) rule.layers = ParseLayers(text.substr(at + 1, equals - at - 1), layers, what);
  const std::string name = text.substr(equals + 1);
  constexpr std::string_view kMutant = "mutant:";
  if (!name.starts_with(kMutant)) {
    rule.row = &ParseRow(rule.op, contract, name, what);
    return rule;
  }
  rule.mutant = &FindMutant(name.substr(kMutant.size()), what);
  if (!rule.mutant->Wraps(rule.op))
    Fail("{}: that mutant knows no op {}; 'lab list mutants' shows which it knows", what,
         NameOf(rule.op));
  return rule;
}

}  // namespace

std::vector<std::pair<int, int>> ParseLayers(std::string_view text, size_t layers,
                                             const std::string& what) {
  std::vector<std::pair<int, int>> ranges;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string_view range = text.substr(at, comma - at);
    const size_t dash = range.find('-');
    const auto first = ToLayer(range.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : ToLayer(range.substr(dash + 1));
    if (!first || !last || *first > *last || static_cast<size_t>(*last) >= layers)
      Fail("{}: '{}' is no layer or range of layers of 0 to {}", what, Printable(range),
           layers - 1);
    ranges.emplace_back(*first, *last);
    at = comma + 1;
  }
  return ranges;
}

bool UseRule::Covers(Op step, int layer, std::string_view name) const {
  return step == op && (matvec.empty() || matvec == name) &&
         (layers.empty() || std::any_of(layers.begin(), layers.end(), [&](auto r) {
            return layer >= r.first && layer <= r.second;
          }));
}

std::vector<UseRule> ParseUse(const std::vector<std::string>& texts, Contract contract,
                              size_t layers) {
  std::vector<UseRule> rules;
  for (const std::string& text : texts) rules.push_back(ParseRule(text, contract, layers));
  return rules;
}

}  // namespace lab
