#pragma once
#include <string>
#include <vector>

namespace lab {

/// How results are printed: for eyes, JSON lines for machines; tables also as CSV and Markdown.
enum class Format { text, jsonl, csv, md };

/// Rows of text under named columns.
class Table {
 public:
  explicit Table(std::vector<std::string> columns) : columns_(std::move(columns)) {}
  /// One cell for each column.
  void Add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  size_t size() const { return rows_.size(); }
  const std::vector<std::string>& columns() const { return columns_; }
  const std::vector<std::vector<std::string>>& rows() const { return rows_; }
  /// Aligned columns; a column that holds only numbers is aligned to the right.
  std::string ToText() const;
  /// An object with the columns as keys, a line for each row; numbers as numbers.
  std::string ToJsonl() const;
  /// RFC 4180: cells with commas, quotes or newlines are quoted.
  std::string ToCsv() const;
  std::string ToMarkdown() const;
  std::string To(Format format) const;

 private:
  std::vector<std::string> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace lab
