#include "lab/table.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace lab {
namespace {

bool IsNumber(const std::string& cell) {
  return !cell.empty() && cell.find_first_not_of("0123456789.") == std::string::npos;
}

// Columns on a terminal: wide characters count twice, combining ones not at all.
size_t Width(const std::string& text) {
  size_t width = 0;
  for (size_t i = 0; i < text.size();) {
    utf8proc_int32_t code;
    const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + i),
                                    static_cast<utf8proc_ssize_t>(text.size() - i), &code);
    if (n <= 0) return text.size();
    width += static_cast<size_t>(utf8proc_charwidth(code));
    i += static_cast<size_t>(n);
  }
  return width;
}

// `text` with every `from` replaced by `to`.
std::string Replaced(const std::string& text, char from, std::string_view to) {
  std::string out;
  for (const char c : text) c == from ? out += to : out += c;
  return out;
}

std::string CsvCell(const std::string& cell) {
  if (cell.find_first_of(",\"\n\r") == std::string::npos) return cell;
  return fmt::format("\"{}\"", Replaced(cell, '"', "\"\""));
}

}  // namespace

std::string Table::ToText() const {
  std::vector<size_t> widths;
  std::vector<bool> right;
  for (size_t c = 0; c < columns_.size(); ++c) {
    size_t width = Width(columns_[c]);
    bool numbers = !rows_.empty();
    for (const auto& row : rows_) {
      width = std::max(width, Width(row[c]));
      numbers &= IsNumber(row[c]);
    }
    widths.push_back(width);
    right.push_back(numbers);
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string out;
    for (size_t c = 0; c < cells.size(); ++c) {
      const std::string padding(widths[c] - Width(cells[c]), ' ');
      out += (c ? "  " : "") + (right[c] ? padding + cells[c] : cells[c] + padding);
    }
    return out.substr(0, out.find_last_not_of(' ') + 1) + "\n";
  };
  std::string out = line(columns_);
  for (const auto& row : rows_) out += line(row);
  return out;
}

std::string Table::ToJsonl() const {
  std::string out;
  for (const auto& row : rows_) {
    nlohmann::ordered_json object;
    for (size_t c = 0; c < columns_.size(); ++c) {
      if (IsNumber(row[c])) {
        object[columns_[c]] = nlohmann::ordered_json::parse(row[c], nullptr, false);
      } else {
        object[columns_[c]] = row[c];
      }
    }
    out += object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  }
  return out;
}

std::string Table::ToCsv() const {
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells) {
    for (size_t c = 0; c < cells.size(); ++c)
      fmt::format_to(std::back_inserter(out), "{}{}", c ? "," : "", CsvCell(cells[c]));
    out += "\n";
  };
  line(columns_);
  for (const auto& row : rows_) line(row);
  return out;
}

std::string Table::ToMarkdown() const {
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells) {
    for (const std::string& cell : cells) out += fmt::format("| {} ", Replaced(cell, '|', "\\|"));
    out += "|\n";
  };
  line(columns_);
  line(std::vector<std::string>(columns_.size(), "---"));
  for (const auto& row : rows_) line(row);
  return out;
}

std::string Table::To(Format format) const {
  switch (format) {
    case Format::text:
      return ToText();
    case Format::jsonl:
      return ToJsonl();
    case Format::csv:
      return ToCsv();
    case Format::md:
      return ToMarkdown();
  }
  return {};
}

}  // namespace lab
