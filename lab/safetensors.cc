#include "lab/safetensors.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "lab/error.h"
#include "lab/names.h"
#include "model/json_metadata.h"

namespace lab {
namespace {

using Json = nlohmann::ordered_json;

size_t BytesOf(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
  if (dtype == "I8" || dtype == "U8" || dtype == "BOOL") return 1;
  return 0;
}

SafetensorsEntry ReadEntry(const std::string& file, const std::string& name,
                           const nlohmann::json& json, std::span<const uint8_t> data) {
  const auto bad = [&](const char* what) {
    Fail("{}: tensor '{}': {}; the file is damaged", file, Printable(name), what);
  };
  SafetensorsEntry entry;
  entry.name = name;
  if (!json.is_object() || !json.contains("dtype") || !json.contains("shape") ||
      !json.contains("data_offsets"))
    bad("dtype, shape or data_offsets is missing");
  const nlohmann::json &dtype = json["dtype"], &shape = json["shape"],
                       &offsets = json["data_offsets"];
  if (!dtype.is_string() || BytesOf(dtype.get<std::string>()) == 0) bad("unknown dtype");
  entry.dtype = dtype;
  uint64_t bytes = BytesOf(entry.dtype);
  if (!shape.is_array()) bad("shape is not a list");
  for (const nlohmann::json& dim : shape) {
    if (!dim.is_number_unsigned()) bad("shape holds something that is no size");
    entry.shape.push_back(dim);
    if (__builtin_mul_overflow(bytes, entry.shape.back(), &bytes)) bad("shape is impossibly large");
  }
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned())
    bad("data_offsets is not a pair");
  const uint64_t begin = offsets[0], end = offsets[1];
  if (begin > end || end > data.size() || end - begin != bytes)
    bad("shape and data range disagree");
  entry.data = data.subspan(begin, bytes);
  return entry;
}

}  // namespace

size_t SafetensorsEntry::elements() const {
  size_t n = 1;
  for (const size_t dim : shape) n *= dim;
  return n;
}

double SafetensorsEntry::At(size_t i) const {
  if (dtype == "F64") {
    double value;
    std::memcpy(&value, data.data() + i * sizeof value, sizeof value);
    return value;
  }
  if (dtype != "F32") Fail("tensor '{}' is {}, not F32 or F64", name, dtype);
  float value;
  std::memcpy(&value, data.data() + i * sizeof value, sizeof value);
  return value;
}

void WriteSafetensors(OutputFile& out, std::span<const SafetensorsEntry> entries,
                      const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const SafetensorsEntry& e : entries) {
    header[e.name] = {
        {"dtype", e.dtype}, {"shape", e.shape}, {"data_offsets", {offset, offset + e.data.size()}}};
    offset += e.data.size();
  }
  std::string text = header.dump(-1, ' ', false, Json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data starts aligned to 8 bytes
  const uint64_t size = text.size();
  out.Write({reinterpret_cast<const char*>(&size), sizeof size});
  out.Write(text);
  for (const SafetensorsEntry& e : entries)
    out.Write({reinterpret_cast<const char*>(e.data.data()), e.data.size()});
}

SafetensorsHeader ReadSafetensorsHeader(const FileBytes& file) {
  const std::span<const uint8_t> bytes = file.bytes();
  uint64_t size = 0;
  if (bytes.size() >= sizeof size) std::memcpy(&size, bytes.data(), sizeof size);
  if (bytes.size() < sizeof size || size > bytes.size() - sizeof size)
    Fail("{}: not a safetensors file, or a truncated one: the header does not fit", file.name());
  const nlohmann::json json =
      ParseJsonObject(fmt::format("{}: offset 8: the header", file.name()),
                      {reinterpret_cast<const char*>(bytes.data()) + sizeof size, size});
  SafetensorsHeader header = {{}, {}, sizeof size + size};
  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") {
      for (const auto& [key, text] : value.items())
        if (text.is_string()) header.metadata[key] = text;
    } else {
      header.entries.push_back(
          ReadEntry(file.name(), name, value, bytes.subspan(header.data_offset)));
    }
  }
  return header;
}

const SafetensorsEntry* Safetensors::Find(std::string_view name) const {
  for (const SafetensorsEntry& e : entries())
    if (e.name == name) return &e;
  return nullptr;
}

}  // namespace lab
