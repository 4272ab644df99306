#pragma once
// safetensors files (https://github.com/huggingface/safetensors): u64 header size, JSON header,
// data.
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lab/output.h"
#include "model/file_bytes.h"

namespace lab {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;  ///< "F32", "F64", "I32", ... as the format spells it
  std::vector<size_t> shape;
  std::span<const uint8_t> data;

  size_t elements() const;
  /// Element i of an F32 or F64 tensor.
  double At(size_t i) const;
};

/// Writes a whole file. Throws Error as OutputFile does.
void WriteSafetensors(OutputFile& out, std::span<const SafetensorsEntry> entries,
                      const std::map<std::string, std::string>& metadata);

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  ///< by name; their data points into the file
  std::map<std::string, std::string> metadata;
  uint64_t data_offset;
};

/// Checks that shapes, dtypes and data ranges agree. Throws Error.
SafetensorsHeader ReadSafetensorsHeader(const FileBytes& file);

class Safetensors {
 public:
  /// Maps and checks a file. Throws Error.
  explicit Safetensors(const std::string& path)
      : file_(FileBytes::Map(path)), header_(ReadSafetensorsHeader(file_)) {}
  const std::vector<SafetensorsEntry>& entries() const { return header_.entries; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  /// Null when there is no such tensor.
  const SafetensorsEntry* Find(std::string_view name) const;
  /// Of the whole file.
  std::span<const uint8_t> bytes() const { return file_.bytes(); }

 private:
  FileBytes file_;
  SafetensorsHeader header_;
};

}  // namespace lab
