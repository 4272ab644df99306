#pragma once
// What readers of TOML files share.
#include <toml++/toml.h>

#include <string>
#include <utility>

#include "lab/error.h"

namespace lab {

/// One TOML file; every complaint names file and line.
class TomlReader {
 protected:
  /// Throws Error where the file cannot be read or is no TOML.
  explicit TomlReader(const std::string& path);

  template <class... A>
  [[noreturn]] void Bad(const toml::node& node, fmt::format_string<A...> format,
                        A&&... args) const {
    Fail("{}: line {}: {}", path_, node.source().begin.line,
         fmt::format(format, std::forward<A>(args)...));
  }

  const std::string path_;
  const toml::table root_;
};

}  // namespace lab
