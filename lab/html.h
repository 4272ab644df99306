#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lab {

/// Writes HTML of which every text and every value of an attribute is escaped; only names of tags
/// and attributes, and what Raw gets, are taken as they are.
class Html {
 public:
  using Attributes = std::vector<std::pair<std::string_view, std::string>>;

  Html& Open(std::string_view tag, const Attributes& attributes = {});
  Html& Text(std::string_view text);
  Html& Close();
  /// Open, Text, Close.
  Html& Leaf(std::string_view tag, std::string_view text, const Attributes& attributes = {});
  /// An element that has no end, such as input.
  Html& Void(std::string_view tag, const Attributes& attributes);
  Html& Raw(std::string_view markup);
  const std::string& str() const { return out_; }

 private:
  std::string out_;
  std::vector<std::string> open_;
};

/// & < > " ' as entities, control characters as U+FFFD.
std::string EscapeHtml(std::string_view text);

}  // namespace lab
