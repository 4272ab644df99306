#pragma once
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "lab/taps.h"

namespace lab {

using Json = nlohmann::ordered_json;

/// JSON has no NaN and no infinities: they are strings.
inline Json Number(double x) {
  return std::isfinite(x) ? Json(x) : Json(fmt::format("{}", x));
}

/// Null outside the layers.
inline Json LayerToJson(int layer) {
  return layer == kNoLayer ? Json() : Json(layer);
}

/// One line; bytes that are no UTF-8 are replaced.
inline std::string ToLine(const Json& record) {
  return record.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace lab
