// A report as one page of HTML. What it looks like is in report.css, what moves in report.js.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lab/html.h"
#include "lab/report.h"
#include "report_files.h"

namespace lab {
namespace {

constexpr size_t kLevels = 8;  // of a colour, l0 to l7

const char* ClassOf(Tone tone) {
  return tone == Tone::good ? "good" : tone == Tone::bad ? "bad" : "neutral";
}
const char* SignOf(Tone tone) {
  return tone == Tone::good ? "\u2713" : tone == Tone::bad ? "\u2717" : "\u2013";
}

// Each level but the first begins above one of these.
std::vector<double> EdgesOf(const HeatMap& map) {
  if (map.scale == Scale::tolerance) return {1e-3, 1e-2, 0.1, 0.3, 1, 3, 10};
  double low = INFINITY, high = 0;
  for (const HeatMap::Frame& frame : map.frames)
    for (const auto& cell : frame.cells) {
      if (!cell || !(cell->figures[0] > 0) || std::isinf(cell->figures[0])) continue;
      low = std::min(low, cell->figures[0]);
      high = std::max(high, cell->figures[0]);
    }
  std::vector<double> edges;
  if (!(low < high)) return edges;
  for (size_t i = 1; i < kLevels; ++i) {
    const double edge = low * std::pow(high / low, static_cast<double>(i) / kLevels);
    edges.push_back(std::stod(fmt::format("{:.1e}", edge)));  // two digits, as the legend has them
  }
  return edges;
}

std::string LevelOf(double value, const std::vector<double>& edges) {
  if (std::isnan(value)) return "x";
  return std::to_string(std::lower_bound(edges.begin(), edges.end(), value) - edges.begin());
}

void PutHead(Html& html, const Report& report) {
  html.Raw(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; script-src 'unsafe-inline'\">\n");
  html.Leaf("title", report.title + " \u2013 lab report");
  html.Raw("<style>\n").Raw(kReportCss).Raw("</style>\n</head>\n<body>\n");
  html.Open("header").Leaf("p", "lab report").Leaf("h1", report.title).Close();
}

void PutFindings(Html& html, const std::vector<Finding>& findings) {
  html.Open("ul", {{"class", "findings"}});
  for (const Finding& f : findings) {
    html.Open("li", {{"class", ClassOf(f.tone)}});
    html.Leaf("span", SignOf(f.tone), {{"class", "sign"}});
    html.Open("span").Leaf("b", f.text);
    if (!f.detail.empty()) html.Leaf("small", f.detail);
    html.Close().Close();
  }
  html.Close();
}

void PutCards(Html& html, const std::vector<Card>& cards) {
  if (cards.empty()) return;
  html.Open("section").Leaf("h2", "Worst elements").Open("div", {{"class", "cards"}});
  for (const Card& card : cards) {
    html.Open("article", {{"class", fmt::format("card {}", ClassOf(card.tone))}});
    html.Leaf("h3", card.place, {{"class", "place"}});
    html.Open("p", {{"class", "value"}}).Text(card.figure).Leaf("small", card.meaning).Close();
    html.Open("dl");
    for (const auto& [key, value] : card.facts) html.Leaf("dt", key).Leaf("dd", value);
    html.Close().Close();
  }
  html.Close().Close();
}

void PutCell(Html& html, const char* tag, const HeatMap& map, size_t index,
             const std::vector<double>& edges) {
  const HeatMap::Frame& frame = map.frames[0];
  const std::optional<Cell>& cell = frame.cells[index];
  std::string tip = map.NameOfCell(index) + (frame.name.empty() ? "" : " ") + frame.name;
  std::string name = "cell";
  if (cell) {
    for (size_t i = 0; i < map.figures.size(); ++i)
      tip += fmt::format("\n{} {}", map.figures[i], FigureText(cell->figures[i]));
    if (!cell->note.empty()) tip += "\n" + cell->note;
    name += " l" + LevelOf(cell->figures[0], edges) + (cell->marked ? " mark" : "");
  } else {
    tip += "\nnot recorded";
  }
  html.Leaf(tag, "", {{"class", name}, {"title", tip}});
}

void PutGrid(Html& html, const HeatMap& map, const std::vector<double>& edges) {
  html.Open("table", {{"class", "grid"}}).Open("thead").Open("tr").Leaf("th", "");
  for (const std::string& column : map.columns)
    html.Open("th", {{"scope", "col"}}).Leaf("span", column).Close();
  html.Close().Close().Open("tbody");
  for (size_t r = 0; r < map.rows.size(); ++r) {
    html.Open("tr").Leaf("th", map.rows[r], {{"scope", "row"}});
    for (size_t c = 0; c < map.columns.size(); ++c)
      PutCell(html, "td", map, r * map.columns.size() + c, edges);
    html.Close();
  }
  html.Close().Close();
}

void PutLegend(Html& html, const HeatMap& map, const std::vector<double>& edges) {
  html.Open("ul", {{"class", "legend"}}).Leaf("li", map.figures[0], {{"class", "name"}});
  for (size_t level = 0; level <= edges.size(); ++level) {
    html.Open("li").Leaf("i", "", {{"class", fmt::format("l{}", level)}});
    html.Text(level < edges.size() ? fmt::format("{:.2g}", edges[level]) : "more").Close();
  }
  if (!map.mark.empty())
    html.Open("li", {{"class", "name"}}).Leaf("i", "", {{"class", "mark"}}).Text(map.mark).Close();
  html.Close();
}

std::string JsonNumber(double x) {
  return std::isnan(x)   ? "null"
         : std::isinf(x) ? (x > 0 ? "1e999" : "-1e999")  // JSON.parse makes them infinite
                         : fmt::format("{:.4g}", x);
}

// The frames behind the first, for the script. nlohmann's numbers would have 17 digits.
void PutData(Html& html, const HeatMap& map, const std::vector<double>& edges) {
  std::string frames;
  for (size_t f = 1; f < map.frames.size(); ++f) {
    const HeatMap::Frame& frame = map.frames[f];
    std::vector<std::string> cells, marked;
    for (size_t i = 0; i < frame.cells.size(); ++i) {
      const std::optional<Cell>& cell = frame.cells[i];
      std::vector<std::string> figures;
      for (const double x : cell ? cell->figures : std::vector<double>())
        figures.push_back(JsonNumber(x));
      cells.push_back(cell ? fmt::format("[{}]", fmt::join(figures, ",")) : "0");
      if (cell && cell->marked) marked.push_back(std::to_string(i));
    }
    frames += fmt::format("{}{{\"name\":{},\"cells\":[{}],\"marked\":[{}]}}", f > 1 ? "," : "",
                          Json(frame.name).dump(), fmt::join(cells, ","), fmt::join(marked, ","));
  }
  std::string json = fmt::format(
      "{{\"figures\":{},\"columns\":{},\"edges\":{},\"frames\":{{\"first\":{},\"rest\":[{}]}}}}",
      Json(map.figures).dump(), map.columns.size(), Json(edges).dump(),
      Json(map.frames[0].name).dump(), frames);
  // Nothing in it may end the element.
  for (size_t at = 0; (at = json.find('<', at)) != std::string::npos;)
    json.replace(at, 1, "\\u003c");
  html.Open("script", {{"type", "application/json"}}).Raw(json).Close();
}

void PutMap(Html& html, const HeatMap& map) {
  const std::vector<double> edges = EdgesOf(map);
  html.Open("figure",
            {{"class",
              fmt::format("map {}", map.scale == Scale::tolerance ? "tolerance" : "magnitude")}});
  html.Open("figcaption").Leaf("h2", map.title);
  if (!map.note.empty()) html.Leaf("p", map.note);
  html.Close();
  if (map.frames.size() > 1) {
    html.Open("label", {{"class", "frames"}}).Text("Tokens");
    html.Void("input", {{"type", "range"},
                        {"min", "0"},
                        {"max", std::to_string(map.frames.size() - 1)},
                        {"value", "0"},
                        {"autocomplete", "off"}});
    html.Leaf("output", map.frames[0].name).Close();
  }
  if (!map.rows.empty()) PutGrid(html, map, edges);
  if (!map.outside.empty()) {
    html.Open("ul", {{"class", "outside"}});
    const size_t grid = map.rows.size() * map.columns.size();
    for (size_t i = 0; i < map.outside.size(); ++i) {
      html.Open("li");
      PutCell(html, "span", map, grid + i, edges);
      html.Text(map.outside[i]).Close();
    }
    html.Close();
  }
  PutLegend(html, map, edges);
  PutData(html, map, edges);
  html.Close();
}

void PutBars(Html& html, const Bars& bars) {
  html.Open("section").Leaf("h2", fmt::format("{}, {}", bars.title, bars.unit));
  if (!bars.note.empty()) html.Leaf("p", bars.note, {{"class", "note"}});
  html.Open("ol", {{"class", "bars"}});
  for (const Bars::Bar& bar : bars.bars) {
    const double share = bars.end > 0 ? std::clamp(bar.value / bars.end, 0.0, 1.0) : 0;
    html.Open("li", {{"class", ClassOf(bar.tone)}});
    html.Leaf("span", bar.label, {{"class", "label"}});
    html.Open("span", {{"class", "track"}});
    html.Leaf("span", "",
              {{"class", "fill"}, {"style", fmt::format("width:{:.1f}%", 100 * share)}});
    html.Close().Leaf("span", bar.text, {{"class", "text"}}).Close();
  }
  html.Close().Close();
}

bool IsNumber(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789.-+e") == std::string::npos;
}

void PutTable(Html& html, const NamedTable& t) {
  html.Open("section").Leaf("h2", t.title);
  if (!t.note.empty()) html.Leaf("p", t.note, {{"class", "note"}});
  html.Open("div", {{"class", "scroll"}, {"tabindex", "0"}}).Open("table", {{"class", "table"}});
  html.Open("thead").Open("tr");
  for (const std::string& column : t.table.columns()) html.Leaf("th", column, {{"scope", "col"}});
  html.Close().Close().Open("tbody");
  for (const auto& row : t.table.rows()) {
    html.Open("tr");
    for (const std::string& cell : row)
      html.Leaf("td", cell, {{"class", IsNumber(cell) ? "number" : "text"}});
    html.Close();
  }
  html.Close().Close().Close().Close();
}

void PutSources(Html& html, const std::vector<NamedTable>& sources) {
  html.Open("section", {{"class", "sources"}}).Leaf("h2", "Where this comes from");
  for (const NamedTable& source : sources) {
    html.Leaf("h3", source.title, {{"class", "place"}}).Open("dl");
    for (const auto& row : source.table.rows()) html.Leaf("dt", row[0]).Leaf("dd", row[1]);
    html.Close();
  }
  html.Close();
}

}  // namespace

std::string ReportToHtml(const Report& report) {
  Html html;
  PutHead(html, report);
  html.Open("main");
  PutFindings(html, report.findings);
  PutCards(html, report.cards);
  if (!report.maps.empty()) {
    html.Open("section", {{"class", "maps"}});
    for (const HeatMap& map : report.maps) PutMap(html, map);
    html.Close();
  }
  for (const Bars& bars : report.bars) PutBars(html, bars);
  for (const NamedTable& table : report.tables) PutTable(html, table);
  PutSources(html, report.sources);
  html.Close();
  html.Raw("<script>\n").Raw(kReportJs).Raw("</script>\n</body>\n</html>\n");
  return html.str();
}

}  // namespace lab
