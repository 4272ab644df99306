// Traces and dumps in a report: the std of every tap, and two runs beside each other.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "lab/facts.h"
#include "lab/names.h"
#include "lab/report.h"

namespace lab {
namespace {

// Tokens that a map shows one by one: 13 KB each on the page.
constexpr size_t kTokens = 48;
constexpr size_t kCards = 6;

// Rows and columns of a map, from the places that it has to show.
class Grid {
 public:
  void Add(Tap tap, int layer) {
    if (layer == kNoLayer)
      outside_.insert(tap);
    else
      columns_.insert(tap), layers_.insert(layer);
  }
  void Label(HeatMap& map) const {
    for (const int layer : layers_) map.rows.push_back(fmt::format("L{:02}", layer));
    for (const Tap tap : columns_) map.columns.emplace_back(InfoOf(tap).name);
    for (const Tap tap : outside_) map.outside.emplace_back(InfoOf(tap).name);
  }
  size_t cells() const { return layers_.size() * columns_.size() + outside_.size(); }
  size_t IndexOf(Tap tap, int layer) const {
    if (layer == kNoLayer) return layers_.size() * columns_.size() + Rank(outside_, tap);
    return Rank(layers_, layer) * columns_.size() + Rank(columns_, tap);
  }

 private:
  template <class T>
  static size_t Rank(const std::set<T>& set, const T& value) {
    return static_cast<size_t>(std::distance(set.begin(), set.find(value)));
  }
  std::set<int> layers_;
  std::set<Tap> columns_, outside_;
};

// The first and the last ones of many.
std::vector<size_t> Shown(const std::set<size_t>& tokens) {
  std::vector<size_t> shown(tokens.begin(), tokens.end());
  if (shown.size() > kTokens)
    shown.erase(shown.begin() + kTokens / 2, shown.end() - static_cast<ptrdiff_t>(kTokens / 2));
  return shown;
}

std::string TokenName(const RunHeader& header, size_t token) {
  const bool known = header.ids && token < header.ids->size();
  return known ? fmt::format("token {} (id {})", token, (*header.ids)[token])
               : fmt::format("token {}", token);
}

std::optional<Cell> StdCell(const Figures& f) {
  if (!f.std) return std::nullopt;
  const double nan = std::nan("");
  Cell cell;
  cell.figures = {f.std->value, f.absmax ? f.absmax->value : nan,
                  f.argmax ? static_cast<double>(*f.argmax) : nan};
  cell.marked = IsMassive(f);
  return cell;
}

// All tokens of one tap and layer: the file's own pooled figures, else made of those of its tokens.
std::optional<Cell> PooledCell(const std::vector<const Figures*>& rows, const PooledRecord* pooled,
                               std::optional<StdKind> kind) {
  std::optional<Cell> cell;
  if (pooled) {
    cell = StdCell(pooled->figures);
  } else {
    std::vector<Figures> population;
    std::vector<const Figures*> pointers;
    for (const Figures* f : rows) {
      Complete(population.emplace_back(*f), kind);
      if (kind) ConvertStd(population.back(), *kind, StdKind::population);
    }
    for (const Figures& f : population) pointers.push_back(&f);
    cell = StdCell(PoolFigures(pointers));
  }
  if (!cell || rows.empty()) return cell;
  // The channel of the largest value, which a pool of figures does not know.
  const auto* largest = *std::max_element(rows.begin(), rows.end(), [](auto* a, auto* b) {
    return (a->absmax ? a->absmax->value : 0) < (b->absmax ? b->absmax->value : 0);
  });
  if (largest->argmax) cell->figures[2] = static_cast<double>(*largest->argmax);
  cell->marked = std::any_of(rows.begin(), rows.end(), [](auto* f) { return IsMassive(*f); });
  return cell;
}

HeatMap::Frame PooledFrame(const RunRecord& run, const Grid& grid) {
  HeatMap::Frame frame = {"all tokens pooled", std::vector<std::optional<Cell>>(grid.cells())};
  std::map<std::pair<int, Tap>, std::vector<const Figures*>> apart;
  for (const auto& [place, record] : run.tokens)
    apart[{place.layer, place.tap}].push_back(&record.figures);
  for (const auto& [key, pooled] : run.pooled) apart[key];
  for (const auto& [key, rows] : apart) {
    const auto pooled = run.pooled.find(key);
    frame.cells[grid.IndexOf(key.second, key.first)] = PooledCell(
        rows, pooled == run.pooled.end() ? nullptr : &pooled->second, run.header.std_kind);
  }
  return frame;
}

HeatMap StdMap(const RunRecord& run, const std::string& name) {
  HeatMap map;
  map.title = fmt::format("Standard deviation of every tap{}", name);
  map.scale = Scale::magnitude;
  map.figures = {"std", "largest magnitude", "channel"};
  map.mark = "a massive activation: 100 or more, and a quarter of a token's energy";
  Grid grid;
  std::set<size_t> tokens;
  for (const auto& [place, record] : run.tokens) {
    grid.Add(place.tap, place.layer);
    tokens.insert(place.token);
  }
  for (const auto& [key, pooled] : run.pooled) grid.Add(key.second, key.first);
  grid.Label(map);
  map.frames.push_back(PooledFrame(run, grid));
  const std::vector<size_t> shown = Shown(tokens);
  if (shown.size() < tokens.size())
    map.note = fmt::format("The first and the last {} of {} tokens can be chosen.", kTokens / 2,
                           tokens.size());
  std::map<size_t, size_t> frame_of;
  for (const size_t token : shown) {
    frame_of[token] = map.frames.size();
    map.frames.push_back(
        {TokenName(run.header, token), std::vector<std::optional<Cell>>(grid.cells())});
  }
  for (const auto& [place, record] : run.tokens)
    if (const auto frame = frame_of.find(place.token); frame != frame_of.end())
      map.frames[frame->second].cells[grid.IndexOf(place.tap, place.layer)] =
          StdCell(record.figures);
  return map;
}

// The largest massive activation of every tap and channel.
Table MassiveTable(const RunRecord& run) {
  struct Run {
    std::set<int> layers;
    std::set<size_t> tokens;
    const Figures* largest = nullptr;
    Place place;
  };
  std::map<std::pair<Tap, uint64_t>, Run> runs;
  for (const auto& [place, record] : run.tokens) {
    const Figures& f = record.figures;
    if (!IsMassive(f) || !f.argmax) continue;
    Run& group = runs[{place.tap, *f.argmax}];
    group.layers.insert(place.layer);
    group.tokens.insert(place.token);
    if (group.largest && group.largest->absmax->value >= f.absmax->value) continue;
    group.largest = &f;
    group.place = place;
  }
  std::vector<std::pair<Tap, const Run*>> order;
  for (const auto& [key, group] : runs) order.emplace_back(key.first, &group);
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return a.second->largest->absmax->value > b.second->largest->absmax->value;
  });
  Table table({"tap", "channel", "largest magnitude", "at", "layers", "tokens"});
  for (const auto& [tap, group] : order) {
    if (table.size() == 12) break;
    const int first = *group->layers.begin(), last = *group->layers.rbegin();
    table.Add({std::string(InfoOf(tap).name), std::to_string(*group->largest->argmax),
               fmt::format("{:.2f}", group->largest->absmax->value),
               fmt::format("{} {}", TapPath(tap, group->place.layer),
                           TokenName(run.header, group->place.token)),
               first == kNoLayer ? "-"
               : first == last
                   ? fmt::format("L{:02}", first)
                   : fmt::format("{}, L{:02} to L{:02}", group->layers.size(), first, last),
               fmt::format("{}", fmt::join(group->tokens, " "))});
  }
  return table;
}

// What a file says of itself; what it does not say is left out.
Table SourceOf(const RunRecord& run) {
  const RunHeader& h = run.header;
  Table table({"", ""});
  const auto add = [&](const char* key, const auto& value) {
    if (value) table.Add({key, Printable(fmt::format("{}", *value), 400)});
  };
  table.Add({"format", h.format});
  add("model", h.model), add("sha256", h.sha256);
  add("contract", h.contract), add("KV", h.kv), add("backend", h.backend);
  if (h.ids) table.Add({"tokens", Printable(fmt::format("{}", fmt::join(*h.ids, " ")), 400)});
  add("command", h.command), add("build", h.build), add("machine", h.machine);
  if (run.report.unexplained > 0)
    table.Add({"not understood", fmt::format("{} lines or tensors", run.report.unexplained)});
  for (const std::string& remark : run.report.remarks) table.Add({"note", Printable(remark, 400)});
  return table;
}

std::string Where(const Compared& c) {
  const std::string path = TapPath(c.place.tap, c.place.layer);
  return c.pooled ? path + " pooled" : fmt::format("{} token {}", path, c.place.token);
}

double Apart(const Compared& c) {
  return c.by_value() ? c.value_apart : c.distance.at_least;
}
double Allowed(const Compared& c) {
  return c.by_value() ? c.value_allowed : c.allowed;
}

HeatMap DiffMap(const RunComparison& c, const RunHeader& header) {
  HeatMap map;
  map.title = "Two runs apart";
  map.note =
      fmt::format("Proven distance of A and B over what right runs under {} may differ by{}.",
                  NameOf(c.contract), c.estimated ? " (estimated by the table)" : "");
  map.scale = Scale::tolerance;
  map.figures = {"of what is allowed", "distance at least", "allowed"};
  map.mark = "more than right runs differ";
  Grid grid;
  std::set<size_t> tokens;
  for (const Compared& p : c.places) {
    grid.Add(p.place.tap, p.place.layer);
    if (!p.pooled) tokens.insert(p.place.token);
  }
  grid.Label(map);
  const std::vector<size_t> shown = Shown(tokens);
  map.frames.push_back({"worst of all tokens", {}});
  for (const size_t token : shown) map.frames.push_back({TokenName(header, token), {}});
  for (HeatMap::Frame& frame : map.frames) frame.cells.resize(grid.cells());
  for (const Compared& p : c.places) {
    const size_t index = grid.IndexOf(p.place.tap, p.place.layer);
    Cell cell = {{p.ratio(), Apart(p), Allowed(p)}, p.different(), ""};
    const auto frame = std::find(shown.begin(), shown.end(), p.place.token);
    if (!p.pooled && frame != shown.end())
      map.frames[static_cast<size_t>(frame - shown.begin()) + 1].cells[index] = cell;
    auto& worst = map.frames[0].cells[index];
    if (worst && worst->figures[0] >= p.ratio()) continue;
    cell.note = p.pooled ? "pooled" : fmt::format("token {}", p.place.token);
    worst = std::move(cell);
  }
  return map;
}

Card CardOf(const Compared& p) {
  Card card = {p.different() ? Tone::bad : Tone::neutral,
               Where(p),
               fmt::format("{:.3g}", p.ratio()),
               "of what is allowed",
               {}};
  const auto add = [&](const char* key, std::string value) {
    card.facts.emplace_back(key, std::move(value));
  };
  add("distance at least", fmt::format("{:.3g}", Apart(p)));
  add("allowed", fmt::format("{:.3g}", Allowed(p)));
  if (p.std_a) add("std in A", fmt::format("{:.6g}", *p.std_a));
  if (p.std_b) add("std in B", fmt::format("{:.6g}", *p.std_b));
  if (p.distance.channel) add("channel", std::to_string(*p.distance.channel));
  add("evidence", std::string(NameOf(p.distance.evidence)));
  return card;
}

// The first value that is no number, in the order of the pass.
void AddNonFinite(const RunRecord& run, const std::string& name, Report& report) {
  for (const auto& [place, record] : run.tokens) {
    const uint64_t nan = record.figures.nan.value_or(0), inf = record.figures.inf.value_or(0);
    if (nan + inf == 0) continue;
    report.findings.push_back({Tone::bad,
                               fmt::format("{} is not finite from {} token {} on", name,
                                           TapPath(place.tap, place.layer), place.token),
                               fmt::format("{} NaN and {} infinite values there", nan, inf)});
    return;
  }
}

}  // namespace

void AddRuns(const std::vector<RunRecord>& runs, Report& report) {
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunRecord& run = runs[i];
    const std::string letter = runs.size() > 1 ? std::string(1, static_cast<char>('A' + i)) : "";
    const std::string name = letter.empty() ? "the run" : letter;
    AddNonFinite(run, name, report);
    HeatMap map = StdMap(run, letter.empty() ? "" : ", " + letter);
    const bool any = std::any_of(map.frames.begin(), map.frames.end(), [](const auto& frame) {
      return std::any_of(frame.cells.begin(), frame.cells.end(),
                         [](const auto& cell) { return cell.has_value(); });
    });
    if (any) report.maps.push_back(std::move(map));
    if (Table massive = MassiveTable(run); massive.size() > 0)
      report.tables.push_back(
          {fmt::format("Massive activations{}", letter.empty() ? "" : ", " + letter),
           "The model's own: a figure pooled over tokens is ruled by them.", std::move(massive)});
    report.sources.push_back(
        {letter.empty() ? Printable(run.header.path) : letter + ": " + Printable(run.header.path),
         "", SourceOf(run)});
    if (report.title.empty() && run.header.model)
      report.title = Printable(run.header.model->substr(run.header.model->rfind('/') + 1), 100);
  }
}

void AddDiff(const DiffResult& diff, Report& report) {
  const RunComparison& c = diff.runs;
  const bool comparable = c.verdict() != RunVerdict::not_comparable;
  const Tone tone = !comparable ? Tone::neutral : DiffExitCode(diff) == 0 ? Tone::good : Tone::bad;
  report.findings.push_back(
      {tone, "A and B: " + VerdictText(diff),
       comparable ? fmt::format("{} places compared", c.places.size())
                  : Printable(fmt::format("{}", fmt::join(c.headers.reasons, "; ")), 400)});
  if (!comparable) return;
  const std::vector<const Compared*> worst = WorstFirst(c);
  for (size_t i = 0; i < std::min(worst.size(), kCards); ++i)
    if (worst[i]->ratio() > 0) report.cards.push_back(CardOf(*worst[i]));
  report.maps.push_back(DiffMap(c, diff.a->header));
}

}  // namespace lab
