// A report as Markdown, for a pull request.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lab/report.h"

namespace lab {
namespace {

constexpr size_t kPlaces = 12;  // of a map

// Markdown takes HTML, and names in traces are anybody's.
std::string Escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("\\`*_[]<>&#|~").find(c) != std::string_view::npos) out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

// Table::ToMarkdown escapes the bars itself.
std::string EscapeCell(const std::string& text) {
  std::string out = Escape(text);
  for (size_t at = 0; (at = out.find("\\|", at)) != std::string::npos;) out.erase(at, 1);
  return out;
}

std::string ToMarkdown(const Table& table) {
  Table escaped(table.columns());
  for (const auto& row : table.rows()) {
    std::vector<std::string> cells;
    for (const std::string& cell : row) cells.push_back(EscapeCell(cell));
    escaped.Add(std::move(cells));
  }
  return escaped.ToMarkdown();
}

std::string Heading(const std::string& title, const std::string& note) {
  return fmt::format("\n### {}\n\n{}", Escape(title), note.empty() ? "" : Escape(note) + "\n\n");
}

// A card a row; its facts are many and differ from card to card.
Table CardTable(const std::vector<Card>& cards) {
  Table table({"", "where", "figure", "facts"});
  for (const Card& card : cards) {
    std::string facts;
    for (const auto& [key, value] : card.facts)
      facts += fmt::format("{}{} {}", facts.empty() ? "" : ", ", key, value);
    table.Add({card.tone == Tone::bad ? "FAIL" : "", card.place,
               fmt::format("{} {}", card.figure, card.meaning), facts});
  }
  return table;
}

// The cells of the largest first figure.
Table MapTable(const HeatMap& map) {
  std::vector<std::string> columns = {"where"};
  columns.insert(columns.end(), map.figures.begin(), map.figures.end());
  columns.emplace_back("");
  Table table(columns);
  const auto& cells = map.frames[0].cells;
  std::vector<size_t> order;
  for (size_t i = 0; i < cells.size(); ++i)
    if (cells[i]) order.push_back(i);
  // NaN is the worst.
  const auto rank = [&](size_t i) {
    const double x = cells[i]->figures[0];
    return std::isnan(x) ? HUGE_VAL : x;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return rank(a) > rank(b); });
  for (const size_t i : std::span(order).first(std::min(order.size(), kPlaces))) {
    std::vector<std::string> row = {map.NameOfCell(i)};
    for (const double x : cells[i]->figures) row.push_back(FigureText(x));
    row.push_back(cells[i]->marked ? map.mark : cells[i]->note);
    table.Add(std::move(row));
  }
  return table;
}

}  // namespace

std::string ReportToMarkdown(const Report& report) {
  std::string text = fmt::format("## {}\n\n", Escape(report.title));
  for (const Finding& f : report.findings)
    text += fmt::format("- {}**{}**{}\n",
                        f.tone == Tone::bad    ? "FAIL: "
                        : f.tone == Tone::good ? "pass: "
                                               : "",
                        Escape(f.text), f.detail.empty() ? "" : ": " + Escape(f.detail));
  if (!report.cards.empty())
    text += Heading("Worst elements", "") + ToMarkdown(CardTable(report.cards));
  for (const HeatMap& map : report.maps)
    text += Heading(map.title, map.note) + ToMarkdown(MapTable(map));
  for (const Bars& bars : report.bars) {
    Table table({"", bars.unit});
    for (const Bars::Bar& bar : bars.bars) table.Add({bar.label, bar.text});
    text += Heading(bars.title, bars.note) + ToMarkdown(table);
  }
  for (const NamedTable& t : report.tables) text += Heading(t.title, t.note) + ToMarkdown(t.table);
  text += Heading("Where this comes from", "");
  for (const NamedTable& source : report.sources) {
    text += fmt::format("- {}", Escape(source.title));
    for (const auto& row : source.table.rows())
      text += fmt::format("; {}: {}", Escape(row[0]), Escape(row[1]));
    text += "\n";
  }
  return text;
}

}  // namespace lab
