#include "lab/toml_reader.h"

#include <string_view>

#include "lab/names.h"
#include "model/file_bytes.h"

namespace lab {
namespace {

toml::table Parse(const std::string& path) {
  const FileBytes file = FileBytes::Map(path);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                              file.bytes().size());
  try {
    return toml::parse(text, path);
  } catch (const toml::parse_error& error) {
    Fail("{}: line {}: {}", path, error.source().begin.line, Printable(error.description(), 200));
  }
}

}  // namespace

TomlReader::TomlReader(const std::string& path) : path_(path), root_(Parse(path)) {}

}  // namespace lab
