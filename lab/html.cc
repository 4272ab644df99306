#include "lab/html.h"

namespace lab {

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 && c != '\n')
          out += "\xEF\xBF\xBD";
        else
          out += c;
    }
  }
  return out;
}

Html& Html::Open(std::string_view tag, const Attributes& attributes) {
  out_.append("<").append(tag);
  for (const auto& [name, value] : attributes)
    out_.append(" ").append(name).append("=\"").append(EscapeHtml(value)).append("\"");
  out_ += ">";
  open_.emplace_back(tag);
  return *this;
}

Html& Html::Text(std::string_view text) {
  out_ += EscapeHtml(text);
  return *this;
}

Html& Html::Close() {
  out_.append("</").append(open_.back()).append(">\n");
  open_.pop_back();
  return *this;
}

Html& Html::Leaf(std::string_view tag, std::string_view text, const Attributes& attributes) {
  return Open(tag, attributes).Text(text).Close();
}

Html& Html::Void(std::string_view tag, const Attributes& attributes) {
  Open(tag, attributes);
  open_.pop_back();
  return *this;
}

Html& Html::Raw(std::string_view markup) {
  out_ += markup;
  return *this;
}

}  // namespace lab
