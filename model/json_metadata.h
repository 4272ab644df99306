#pragma once
// JSON inside and beside weight files.
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "model/weight_file.h"

namespace lab {

/// Parses the JSON object `text`. Throws Error, beginning with `what` ("m.apr: offset 64: the
/// metadata"), when it is none, nests deeper than 32 levels (open brackets cost the most memory for
/// each byte of text) or has a key twice at its top level.
nlohmann::json ParseJsonObject(const std::string& what, std::string_view text);

/// Appends the values of `json` to parts.metadata and keeps it alive there. Keys get `prefix`;
/// those of objects inside are joined with dots; null counts as absent; arrays become arrays of
/// strings, integers (i64) or fractions (f64), mixed ones their text. `offset` as in MetaKeyValue.
void AddJsonMetadata(WeightFileParts& parts, std::string_view prefix, nlohmann::json json,
                     std::optional<size_t> offset);

/// Appends one array that the caller made.
void AddStrings(WeightFileParts& parts, const std::string& key, std::vector<std::string> strings);
void AddIntegers(WeightFileParts& parts, const std::string& key, std::vector<int64_t> integers);

}  // namespace lab
