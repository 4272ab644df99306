#include "lab/run_readers.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "lab/names.h"

namespace lab {

std::optional<StoredType> ArithmeticOf(const std::optional<std::string>& backend) {
  if (backend == "oracle") return StoredType::f64;
  if (backend == "ref" || backend == "hwy") return StoredType::f32;
  return std::nullopt;
}

std::vector<std::string_view> LinesOf(std::string_view text) {
  std::vector<std::string_view> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    at = end + 1;
  }
  return lines;
}

bool IsPlainText(const RunFile& file) {
  return file.bytes.substr(0, 4096).find('\0') == std::string_view::npos;
}

std::string_view Trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::vector<std::string_view> SplitAtCommas(std::string_view text) {
  std::vector<std::string_view> parts;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    parts.push_back(Trim(text.substr(at, end - at)));
    at = end + 1;
  }
  return parts;
}

std::optional<Figure> ParseFigure(std::string_view text) {
  text = Trim(text);
  Figure figure;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, figure.value);
  if (text.empty() || error != std::errc() || stop != end) return std::nullopt;
  if (!std::isfinite(figure.value)) return figure;
  const size_t mark = std::min(text.find_first_of("eE"), text.size());
  const size_t point = std::min(text.find('.'), mark);
  int exponent = 0;
  if (mark < text.size()) {
    const char* sign = text.data() + mark + 1;
    std::from_chars(*sign == '+' ? sign + 1 : sign, end, exponent);
  }
  const int digits = point < mark ? static_cast<int>(mark - point - 1) : 0;
  figure.rounding = 0.5 * std::pow(10.0, exponent - digits);
  return figure;
}

std::optional<std::string_view> After(std::string_view text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return std::nullopt;
  return Trim(text.substr(prefix.size()));
}

std::optional<size_t> ParseCount(std::string_view text) {
  return ParseDigits(Trim(text));
}

std::optional<std::vector<int32_t>> ParseIds(std::string_view text) {
  std::vector<int32_t> ids;
  for (const std::string_view part : SplitAtCommas(text)) {
    const auto id = ParseCount(part);
    if (!id) return std::nullopt;
    ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

}  // namespace lab
