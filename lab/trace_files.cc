// Traces for machines: JSON lines and CSV.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>

#include "bench/machine.h"
#include "lab/parallel.h"
#include "lab/trace.h"
#include "lab/version.h"

namespace lab {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kSchema = 1;

// A number with 9 significant digits; JSON has no NaN or Inf, they become strings.
Json Number(double x) {
  if (std::isnan(x)) return "NaN";
  if (std::isinf(x)) return x > 0 ? "Infinity" : "-Infinity";
  return std::strtod(fmt::format("{:.9g}", x).c_str(), nullptr);
}

Json Numbers(const std::vector<double>& values) {
  Json list = Json::array();
  for (const double x : values) list.push_back(Number(x));
  return list;
}

Json ToObject(const std::vector<std::pair<std::string, std::string>>& pairs) {
  Json object = Json::object();
  for (const auto& [key, value] : pairs) object[key] = value;
  return object;
}

// The hash in hexadecimal: JSON numbers are doubles in many readers.
Json ToJson(const Sketch& sketch) {
  Json projections = Json::array();
  for (const double p : sketch.projections) projections.push_back(Number(p));
  return {{"hash", fmt::format("{:016x}", sketch.hash)}, {"projections", projections}};
}

// Records of statistics are written as text at once: a traced prefill of 512 tokens has 290
// thousand of them, and by way of a Json they took longer than the statistics (notes/results.md).

// What Number says, as text.
void AppendNumber(std::string& line, double x) {
  if (std::isfinite(x))
    fmt::format_to(std::back_inserter(line), "{:.9g}", x);
  else
    line += Number(x).dump();
}

void AppendStats(std::string& line, const Stats& s) {
  fmt::format_to(std::back_inserter(line), R"("n":{},"nan":{},"inf":{},"zeros":{})", s.n, s.nan,
                 s.inf, s.zeros);
  const auto number = [&](std::string_view key, double x) {
    line += key;
    AppendNumber(line, x);
  };
  number(R"(,"min":)", s.min);
  number(R"(,"max":)", s.max);
  number(R"(,"mean":)", s.mean);
  number(R"(,"std":)", s.std);
  number(R"(,"rms":)", s.rms);
  number(R"(,"absmax":)", s.absmax);
  fmt::format_to(std::back_inserter(line), R"(,"argmax":{})", s.argmax);
  number(R"(,"l2":)", s.l2);
  number(R"(,"crest":)", s.crest);
}

// The beginning of a record of one tap and layer.
void AppendTap(std::string& line, std::string_view kind, Tap tap, int layer) {
  fmt::format_to(std::back_inserter(line), R"({{"kind":"{}","tap":"{}","layer":)", kind,
                 InfoOf(tap).name);
  line += layer == kNoLayer ? "null," : fmt::format("{},", layer);
}

std::string TapLine(const TapRecord& r, int32_t id) {
  std::string line;
  line.reserve(400);
  AppendTap(line, "tap", r.tap, r.layer);
  fmt::format_to(std::back_inserter(line), R"("token":{},"id":{},)", r.token, id);
  AppendStats(line, r.stats);
  if (r.sketch) line += R"(,"sketch":)" + ToJson(*r.sketch).dump();
  return line + "}\n";
}

void WriteTaps(const Trace& trace, const TextSink& write) {
  constexpr size_t kAtOnce = 1 << 14, kPiece = 256;
  const std::span taps(trace.taps);
  const auto threads = static_cast<size_t>(std::max(trace.header.threads, 1));
  std::vector<std::string> lines(std::min(kAtOnce, taps.size()));
  for (size_t first = 0; first < taps.size(); first += kAtOnce) {
    const std::span part = taps.subspan(first, std::min(kAtOnce, taps.size() - first));
    ParallelEach((part.size() + kPiece - 1) / kPiece, threads, [&](size_t piece) {
      const size_t end = std::min((piece + 1) * kPiece, part.size());
      for (size_t i = piece * kPiece; i < end; ++i)
        lines[i] = TapLine(part[i], trace.header.ids.at(part[i].token));
    });
    for (const std::string& line : std::span(lines).first(part.size())) write(line);
  }
}

// Which tokens each tap holds: "all", or their positions.
Json RecordedTokens(const Trace& trace) {
  std::map<Tap, std::vector<size_t>> tokens;
  for (const TapRecord& r : trace.taps)
    if (r.layer <= 0) tokens[r.tap].push_back(r.token);
  Json recorded = Json::object();
  for (const auto& [tap, positions] : tokens)
    recorded[std::string(InfoOf(tap).name)] =
        positions.size() == trace.header.ids.size() ? Json("all") : Json(positions);
  return recorded;
}

Json HeaderRecord(const Trace& trace) {
  const TraceHeader& h = trace.header;
  Json positions = Json::array(), steps = Json::array();
  for (size_t i = 0; i < h.ids.size(); ++i) positions.push_back(i);
  for (const TraceStep& s : h.steps)
    steps.push_back({{"phase", s.prefill ? "prefill" : "decode"},
                     {"first", s.first_token},
                     {"tokens", s.tokens}});
  return {{"kind", "header"},
          {"schema", kSchema},
          {"model", h.model},
          {"sha256", h.sha256},
          {"architecture", h.architecture},
          {"layers", h.layers},
          {"ids", h.ids},
          {"positions", positions},
          {"steps", steps},
          {"recorded", RecordedTokens(trace)},
          {"std", "population"},
          {"contract", h.contract},
          {"kv", h.kv_type},
          {"backend", h.backend},
          {"rows", ToObject(h.rows)},
          {"threads", h.threads},
          {"commit", Commit()},
          {"compiler", Compiler()},
          {"highway_target", HighwayTarget()},
          {"device", "cpu"},
          {"cpu", CpuModel()},
          {"command_line", h.command_line},
          {"types", ToObject(h.tensor_types)}};
}

const TapRecord* FindToken(const TapGroup& group, size_t token) {
  const auto it =
      std::lower_bound(group.begin(), group.end(), token,
                       [](const TapRecord* r, size_t wanted) { return r->token < wanted; });
  return it != group.end() && (*it)->token == token ? *it : nullptr;
}

std::string Line(const Json& record) {
  return record.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

void TraceToJsonl(const Trace& trace, const TextSink& write) {
  write(Line(HeaderRecord(trace)));
  WriteTaps(trace, write);
  for (const TopRecord& t : trace.tops)
    write(Line({{"kind", "top"},
                {"token", t.token},
                {"ids", t.ids},
                {"logits", Numbers(t.logits)},
                {"p", Numbers(t.p)}}));
  for (const auto& [key, group] : GroupTaps(trace)) {
    Stats pooled = PoolGroup(group);
    const TapRecord& largest = *group[pooled.argmax];
    pooled.argmax = largest.stats.argmax;
    std::string line;
    AppendTap(line, "pooled", key.second, key.first);
    fmt::format_to(std::back_inserter(line), R"("tokens":{},)", group.size());
    AppendStats(line, pooled);
    write(fmt::format("{},\"argmax_token\":{}}}\n", line, largest.token));
  }
  const Generated& g = trace.generated;
  if (!g.ids.empty())
    write(Line({{"kind", "generated"},
                {"ids", g.ids},
                {"text", g.text},
                {"end", g.end_of_text ? "end_of_text" : "length"}}));
  uint64_t nan = 0, inf = 0;
  for (const TapRecord& r : trace.taps) nan += r.stats.nan, inf += r.stats.inf;
  write(Line({{"kind", "summary"},
              {"tokens", trace.header.ids.size()},
              {"taps", trace.taps.size()},
              {"tops", trace.tops.size()},
              {"nan", nan},
              {"inf", inf}}));
}

void TraceToCsv(const Trace& trace, const TextSink& write) {
  std::string head = "layer,token,id";
  for (const TapInfo& tap : Taps())
    if (tap.per_layer) head += fmt::format(",{0}_mean,{0}_std,{0}_absmax,{0}_argmax", tap.name);
  write(head + "\n");
  const auto groups = GroupTaps(trace);
  for (size_t layer = 0; layer < trace.header.layers; ++layer) {
    for (size_t token = 0; token < trace.header.ids.size(); ++token) {
      std::string row = fmt::format("{},{},{}", layer, token, trace.header.ids[token]);
      for (size_t t = 0; t < Taps().size(); ++t) {
        if (!Taps()[t].per_layer) continue;
        const auto it = groups.find({static_cast<int>(layer), static_cast<Tap>(t)});
        const TapRecord* found = it == groups.end() ? nullptr : FindToken(it->second, token);
        row += found ? fmt::format(",{:.9g},{:.9g},{:.9g},{}", found->stats.mean, found->stats.std,
                                   found->stats.absmax, found->stats.argmax)
                     : ",,,,";
      }
      write(row + "\n");
    }
  }
}

}  // namespace lab
