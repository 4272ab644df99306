// Reader of lab's own traces, JSON lines (notes/formats.md).
#include <charconv>
#include <cmath>
#include <limits>

#include "lab/error.h"
#include "lab/json.h"
#include "lab/names.h"
#include "lab/run_readers.h"

namespace lab {
namespace {

// Numbers are written with 9 significant digits: off by at most half a unit of the ninth.
constexpr double kRounding = 5e-9;

class TraceReader {
 public:
  explicit TraceReader(const RunFile& file) : file_(file) {}

  RunRecord Read() {
    bool summary = false;
    for (const std::string_view line : LinesOf(file_.bytes)) {
      ++line_;
      if (line.empty()) continue;
      const Json record = Json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (!record.is_object()) Bad("is not a JSON object; the file may be cut off");
      Take(record, summary);
    }
    if (!summary) run_.report.remarks.push_back("no summary record: the file may be cut off");
    return std::move(run_);
  }

 private:
  template <class... A>
  [[noreturn]] void Bad(fmt::format_string<A...> what, A&&... args) const {
    Fail("{}: line {}: {}", file_.path, line_, fmt::format(what, std::forward<A>(args)...));
  }

  void Take(const Json& record, bool& summary) {
    try {
      const std::string kind = record.value("kind", "");
      if (kind == "header")
        TakeHeader(record);
      else if (kind == "tap")
        TakeTap(record);
      else if (kind == "pooled")
        TakePooled(record);
      else if (kind == "top")
        TakeTop(record);
      else if (kind == "summary")
        summary = true;
      else if (kind != "generated" && kind != "absent" && kind != "time")
        run_.report.Unexplained(fmt::format("line {}: kind '{}'", line_, Printable(kind)));
    } catch (const Json::exception& error) {
      Bad("{}", Printable(error.what(), 160));
    }
  }

  Tap TapOf(const Json& record) const {
    const std::string name = record.at("tap");
    if (const auto tap = FindTap(name)) return *tap;
    Bad("unknown tap '{}'; 'lab list taps' names them", Printable(name));
  }

  // A whole number from 0 to `most`. The library would convert -1 and 1e300 as well, to anything.
  uint64_t Whole(const Json& json, uint64_t most = std::numeric_limits<uint64_t>::max()) const {
    if (!json.is_number_unsigned() || json.get<uint64_t>() > most)
      Bad("a {} where a whole number from 0 to {} belongs", json.type_name(), most);
    return json.get<uint64_t>();
  }

  std::vector<int32_t> Ids(const Json& json) const {
    if (!json.is_array()) Bad("a {} where a list of token ids belongs", json.type_name());
    std::vector<int32_t> ids;
    for (const Json& id : json)
      ids.push_back(static_cast<int32_t>(Whole(id, std::numeric_limits<int32_t>::max())));
    return ids;
  }

  int LayerOf(const Json& record) const {
    const Json& layer = record.at("layer");
    return layer.is_null() ? kNoLayer : static_cast<int>(Whole(layer, 1 << 20));
  }

  double Value(const Json& json) const {
    if (json.is_number()) return json.get<double>();
    const std::string text = json;
    if (text == "NaN" || text == "nan") return std::numeric_limits<double>::quiet_NaN();
    const double infinity = std::numeric_limits<double>::infinity();
    if (text == "Infinity" || text == "inf") return infinity;
    if (text == "-Infinity" || text == "-inf") return -infinity;
    Bad("'{}' is no number", Printable(text));
  }

  Figures ReadFigures(const Json& record) const {
    const auto count = [&](const char* key) {
      return record.contains(key) ? std::optional(Whole(record[key])) : std::nullopt;
    };
    const auto figure = [&](const char* key) -> std::optional<Figure> {
      if (!record.contains(key)) return std::nullopt;
      const double value = Value(record[key]);
      return Figure{value, std::isfinite(value) ? kRounding * std::abs(value) : 0};
    };
    Figures f;
    f.n = count("n"), f.nan = count("nan"), f.inf = count("inf"), f.zeros = count("zeros");
    f.min = figure("min"), f.max = figure("max"), f.mean = figure("mean"), f.std = figure("std");
    f.rms = figure("rms"), f.absmax = figure("absmax"), f.l2 = figure("l2");
    f.argmax = count("argmax");
    return f;
  }

  void TakeTap(const Json& record) {
    const Place place = {TapOf(record), LayerOf(record), Whole(record.at("token"))};
    if (run_.header.ids && place.token >= run_.header.ids->size())
      Bad("token {} of a run of {}", place.token, run_.header.ids->size());
    if (run_.tokens.contains(place))
      Bad("{} of token {} for the second time", TapPath(place.tap, place.layer), place.token);
    TokenRecord& token = run_.tokens[place];
    token.figures = ReadFigures(record);
    if (!record.contains("sketch")) return;
    const Json& json = record["sketch"];
    Sketch& sketch = token.sketch.emplace();
    const std::string hash = json.at("hash");
    const auto [end, error] =
        std::from_chars(hash.data(), hash.data() + hash.size(), sketch.hash, 16);
    if (error != std::errc() || end != hash.data() + hash.size() ||
        json.at("projections").size() != sketch.projections.size())
      Bad("the sketch is damaged");
    for (size_t k = 0; k < sketch.projections.size(); ++k)
      sketch.projections[k] = Value(json["projections"][k]);
  }

  // A pooled record says how many tokens it is of; which ones is known if they came before it one
  // by one, or if they are all.
  void TakePooled(const Json& record) {
    const Place first = {TapOf(record), LayerOf(record), 0};
    const auto [place, is_new] = run_.pooled.try_emplace({first.layer, first.tap});
    if (!is_new) Bad("{} pooled for the second time", TapPath(first.tap, first.layer));
    PooledRecord& pooled = place->second;
    pooled.figures = ReadFigures(record);
    for (auto it = run_.tokens.lower_bound(first); it != run_.tokens.end(); ++it) {
      if (it->first.tap != first.tap || it->first.layer != first.layer) break;
      pooled.tokens.Add(it->first.token);
    }
    const size_t count = Whole(record.at("tokens"));
    const auto& ids = run_.header.ids;
    if (pooled.tokens.empty() && ids && count == ids->size()) pooled.tokens.Add(0, count);
    if (!pooled.tokens.empty() && pooled.tokens.size() != count)
      Bad("{} pools {} tokens, but {} came before it", TapPath(first.tap, first.layer), count,
          pooled.tokens.size());
  }

  void TakeTop(const Json& record) {
    TopRecord top = {Whole(record.at("token")), Ids(record.at("ids")), {}, {}, {}};
    for (const Json& logit : record.at("logits")) top.logits.push_back(Value(logit));
    if (record.contains("p"))
      for (const Json& p : record["p"]) top.p.push_back(Value(p));
    run_.tops.push_back(std::move(top));
  }

  void TakeHeader(const Json& record) {
    RunHeader& h = run_.header;
    const auto text = [&](const char* key) -> std::optional<std::string> {
      if (!record.contains(key) || record[key] == "") return std::nullopt;
      return record[key].get<std::string>();
    };
    h.model = text("model"), h.sha256 = text("sha256"), h.architecture = text("architecture");
    h.contract = text("contract"), h.kv = text("kv"), h.backend = text("backend");
    if (record.contains("layers")) h.layers = Whole(record["layers"]);
    for (const char* key : {"ids", "tokens"})  // the golden data calls them tokens
      if (record.contains(key)) h.ids = Ids(record[key]);
    if (const auto kind = text("std")) {
      if (kind != "population" && kind != "sample") Bad("std '{}' is unknown", Printable(*kind));
      h.std_kind = kind == "sample" ? StdKind::sample : StdKind::population;
    }
    h.arithmetic = ArithmeticOf(h.backend);
    TakeOrigin(record);
    if (!record.contains("steps")) return;
    h.steps.emplace();
    constexpr uint64_t kMostTokens = std::numeric_limits<int32_t>::max();
    size_t end = 0;
    for (const Json& s : record["steps"]) {
      const TraceStep step = {s.at("phase") == "prefill", Whole(s.at("first"), kMostTokens),
                              Whole(s.at("tokens"), kMostTokens)};
      if (step.first_token < end)
        Bad("a step begins at token {}, before the step ahead of it ends at {}", step.first_token,
            end);
      end = step.first_token + step.tokens;
      h.steps->push_back(step);
    }
  }

  void TakeOrigin(const Json& record) {
    RunHeader& h = run_.header;
    if (record.contains("command_line"))
      h.command =
          fmt::format("{}", fmt::join(record["command_line"].get<std::vector<std::string>>(), " "));
    if (record.contains("commit"))
      h.build = fmt::format("commit {}, {}", record["commit"].get<std::string>(),
                            record.value("compiler", "compiler unknown"));
    if (record.contains("highway_target"))
      h.machine = fmt::format(
          "{}{}, {} threads", record.contains("cpu") ? record["cpu"].get<std::string>() + ", " : "",
          record["highway_target"].get<std::string>(), record.value("threads", 1));
  }

  const RunFile& file_;
  RunRecord run_;
  size_t line_ = 0;
};

}  // namespace

bool IsLabTrace(const RunFile& file) {
  const std::string_view line = file.bytes.substr(0, file.bytes.find('\n'));
  if (!line.starts_with('{')) return false;
  const Json record = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  // A header of 'lab diff' is one of its fields.
  return record.is_object() && record.contains("kind") && record["kind"] == "header" &&
         !record.contains("field");
}

RunRecord ReadLabTrace(const RunFile& file) {
  return TraceReader(file).Read();
}

}  // namespace lab
