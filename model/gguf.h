#pragma once
// Reader of GGUF v2 and v3 files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
// Every count, string, offset and array is checked against the file before it is used. What a file
// can make lab allocate is bounded by its own size: at most 32 bytes for each byte of header.
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "kernels/block_types.h"
#include "model/file_bytes.h"

namespace lab {

enum class GgufType : uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};

/// An array as it lies in the file; strings are found once, numbers are decoded on demand.
struct GgufArray {
  GgufType element;
  size_t size;
  std::span<const uint8_t> bytes;         ///< of number elements
  std::vector<std::string_view> strings;  ///< of string elements

  /// Element i of an integer array.
  int64_t Integer(size_t i) const;
};

struct GgufValue {
  GgufType type;
  std::variant<uint64_t, int64_t, double, bool, std::string_view, GgufArray> value;

  /// For people: numbers and strings as they are, arrays as "[151936 strings] a, b, c, ...".
  std::string ToText() const;
};

struct GgufKeyValue {
  std::string_view key;
  size_t offset;  ///< of the key in the file
  GgufValue value;
};

struct GgufTensor {
  std::string_view name;
  uint32_t type;  ///< GGUF's number; the reader accepts numbers it has no block type for
  std::array<uint64_t, 4> dims;  ///< dims[0] is the row length; unused ones are 1
  uint32_t n_dims;
  uint64_t offset;      ///< of the data in the file
  uint64_t bytes;       ///< 0 when the type is unknown
  const uint8_t* data;  ///< null when the type is unknown

  uint64_t elements() const { return dims[0] * dims[1] * dims[2] * dims[3]; }
  const BlockTypeInfo* block() const { return FindBlockType(type); }
  /// "Q4_K", or "type 23" where lab has no such block type.
  std::string TypeName() const;
};

class Gguf {
 public:
  /// Parses the header. Throws Error naming file, offset and key or tensor.
  explicit Gguf(FileBytes file);

  const FileBytes& file() const { return file_; }
  uint32_t version() const { return version_; }
  uint64_t alignment() const { return alignment_; }
  size_t data_offset() const { return data_offset_; }
  const std::vector<GgufKeyValue>& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }

  const GgufValue* Find(std::string_view key) const;
  const GgufTensor* FindTensor(std::string_view name) const;

  /// The value of a key as that kind. Absent: nullopt or null. Another kind: Error.
  std::optional<uint64_t> Unsigned(std::string_view key) const;
  std::optional<double> Number(std::string_view key) const;
  std::optional<bool> Bool(std::string_view key) const;
  std::optional<std::string_view> String(std::string_view key) const;
  const GgufArray* Strings(std::string_view key) const;
  const GgufArray* Integers(std::string_view key) const;

 private:
  void ReadTensorInfos(class GgufCursor& in, uint64_t count);
  void PlaceTensors();
  [[noreturn]] void WrongKind(std::string_view key, std::string_view wanted) const;

  FileBytes file_;
  uint32_t version_ = 0;
  uint64_t alignment_ = 32;
  size_t data_offset_ = 0;
  std::vector<GgufKeyValue> metadata_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, size_t> tensor_index_;
};

}  // namespace lab
