// Traces for machines: JSON lines and CSV.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "bench/machine.h"
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

Json LayerOf(int layer) {
  return layer == kNoLayer ? Json() : Json(layer);
}

Json ToObject(const std::vector<std::pair<std::string, std::string>>& pairs) {
  Json object = Json::object();
  for (const auto& [key, value] : pairs) object[key] = value;
  return object;
}

void PutStats(Json& record, const Stats& s) {
  record["n"] = s.n;
  record["nan"] = s.nan;
  record["inf"] = s.inf;
  record["zeros"] = s.zeros;
  record["min"] = Number(s.min);
  record["max"] = Number(s.max);
  record["mean"] = Number(s.mean);
  record["std"] = Number(s.std);
  record["rms"] = Number(s.rms);
  record["absmax"] = Number(s.absmax);
  record["argmax"] = s.argmax;
  record["l2"] = Number(s.l2);
  record["crest"] = Number(s.crest);
}

// The hash in hexadecimal: JSON numbers are doubles in many readers.
Json ToJson(const Sketch& sketch) {
  Json projections = Json::array();
  for (const double p : sketch.projections) projections.push_back(Number(p));
  return {{"hash", fmt::format("{:016x}", sketch.hash)}, {"projections", projections}};
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
  uint64_t nan = 0, inf = 0;
  for (const TapRecord& r : trace.taps) {
    Json record = {{"kind", "tap"},
                   {"tap", InfoOf(r.tap).name},
                   {"layer", LayerOf(r.layer)},
                   {"token", r.token},
                   {"id", trace.header.ids.at(r.token)}};
    PutStats(record, r.stats);
    if (r.sketch) record["sketch"] = ToJson(*r.sketch);
    write(Line(record));
    nan += r.stats.nan;
    inf += r.stats.inf;
  }
  for (const TopRecord& t : trace.tops)
    write(Line({{"kind", "top"},
                {"token", t.token},
                {"ids", t.ids},
                {"logits", Numbers(t.logits)},
                {"p", Numbers(t.p)}}));
  for (const auto& [key, group] : GroupTaps(trace)) {
    Json record = {{"kind", "pooled"},
                   {"tap", InfoOf(key.second).name},
                   {"layer", LayerOf(key.first)},
                   {"tokens", group.size()}};
    const Stats pooled = PoolGroup(group);
    PutStats(record, pooled);
    record["argmax"] = group[pooled.argmax]->stats.argmax;
    record["argmax_token"] = group[pooled.argmax]->token;
    write(Line(record));
  }
  const Generated& g = trace.generated;
  if (!g.ids.empty())
    write(Line({{"kind", "generated"},
                {"ids", g.ids},
                {"text", g.text},
                {"end", g.end_of_text ? "end_of_text" : "length"}}));
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
