#include "model/gguf.h"

#include <cstring>
#include <limits>
#include <unordered_set>

#include "lab/error.h"
#include "lab/names.h"
#include "model/file_cursor.h"

namespace lab {
namespace {

size_t SizeOf(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean:
      return 1;
    case GgufType::u16:
    case GgufType::i16:
      return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32:
      return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64:
      return 8;
    case GgufType::string:
    case GgufType::array:
      return 0;
  }
  return 0;
}

GgufType ReadType(FileCursor& in, std::string_view what) {
  const size_t at = in.offset();
  const auto type = in.Read<uint32_t>(what);
  if (type > static_cast<uint32_t>(GgufType::f64))
    in.Bad(at, "{}: unknown value type {}", what, type);
  return static_cast<GgufType>(type);
}

MetaArray ReadArray(FileCursor& in, std::string_view what) {
  const size_t at = in.offset();
  MetaArray array = {};
  array.element = ReadType(in, what);
  if (array.element == GgufType::array)
    in.Bad(at, "{}: an array of arrays, which no model file uses", what);
  if (array.element == GgufType::string) {
    array.size = in.Count(sizeof(uint64_t), what);
    array.strings.reserve(array.size);
    for (size_t i = 0; i < array.size; ++i)
      array.strings.push_back(in.Text(in.Read<uint64_t>(what), what));
  } else {
    array.size = in.Count(SizeOf(array.element), what);
    array.bytes = in.Take(array.size * SizeOf(array.element), what);
  }
  return array;
}

MetaValue ReadValue(FileCursor& in, std::string_view what) {
  const GgufType type = ReadType(in, what);
  switch (type) {
    case GgufType::u8:
      return {uint64_t{in.Read<uint8_t>(what)}};
    case GgufType::u16:
      return {uint64_t{in.Read<uint16_t>(what)}};
    case GgufType::u32:
      return {uint64_t{in.Read<uint32_t>(what)}};
    case GgufType::u64:
      return {in.Read<uint64_t>(what)};
    case GgufType::i8:
      return {int64_t{in.Read<int8_t>(what)}};
    case GgufType::i16:
      return {int64_t{in.Read<int16_t>(what)}};
    case GgufType::i32:
      return {int64_t{in.Read<int32_t>(what)}};
    case GgufType::i64:
      return {in.Read<int64_t>(what)};
    case GgufType::f32:
      return {double{in.Read<float>(what)}};
    case GgufType::f64:
      return {in.Read<double>(what)};
    case GgufType::boolean: {
      const size_t at = in.offset();
      const auto byte = in.Read<uint8_t>(what);
      if (byte > 1) in.Bad(at, "{}: a bool holds {}", what, byte);
      return {byte == 1};
    }
    case GgufType::string:
      return {in.Text(in.Read<uint64_t>(what), what)};
    case GgufType::array:
      return {ReadArray(in, what)};
  }
  in.Bad(in.offset(), "{}: unknown value type", what);
}

void ReadMetadata(FileCursor& in, uint64_t n_keys, WeightFileParts& parts) {
  std::unordered_set<std::string_view> seen;
  for (uint64_t i = 0; i < n_keys; ++i) {
    const size_t at = in.offset();
    const std::string number = fmt::format("the name of metadata key {}", i);
    const std::string_view key = in.Text(in.Read<uint64_t>(number), number);
    const std::string what = fmt::format("key '{}'", Printable(key));
    if (!seen.insert(key).second) in.Bad(at, "{} appears twice", what);
    parts.metadata.push_back({key, at, ReadValue(in, what)});
  }
}

uint64_t ReadAlignment(const WeightFileParts& parts) {
  constexpr std::string_view kKey = "general.alignment";
  for (const MetaKeyValue& kv : parts.metadata) {
    if (kv.key != kKey) continue;
    const std::optional<uint64_t> alignment = kv.value.Unsigned();
    if (!alignment)
      Fail("{}: offset {}: key '{}' is not an unsigned number", parts.file.name(), *kv.offset,
           kKey);
    if (*alignment == 0 || *alignment % 8 != 0 || *alignment > (1u << 20))
      Fail("{}: {} is {}, which is not a multiple of 8 up to 1 MiB", parts.file.name(), kKey,
           *alignment);
    return *alignment;
  }
  return 32;
}

// Leaves `offset` relative to the data section, whose place is not known yet.
void ReadTensorInfos(FileCursor& in, uint64_t count, WeightFileParts& parts) {
  std::unordered_set<std::string_view> seen;
  for (uint64_t i = 0; i < count; ++i) {
    const size_t at = in.offset();
    WeightTensor t;
    const std::string number = fmt::format("the name of tensor {}", i);
    t.spelling = in.Text(in.Read<uint64_t>(number), number);
    t.name = t.spelling;
    const std::string what = fmt::format("tensor '{}'", Printable(t.spelling));
    if (!seen.insert(t.spelling).second) in.Bad(at, "{} appears twice", what);
    const auto n_dims = in.Read<uint32_t>(what);
    uint64_t sizes[4] = {};
    for (uint32_t d = 0; d < n_dims && n_dims <= 4; ++d) sizes[d] = in.Read<uint64_t>(what);
    if (const std::string problem = t.SetShape(n_dims, sizes); !problem.empty())
      in.Bad(at, "{} {}", what, problem);
    t.SetGgufType(in.Read<uint32_t>(what));
    t.offset = in.Read<uint64_t>(what);
    parts.tensors.push_back(std::move(t));
  }
}

}  // namespace

WeightFile ReadGguf(FileBytes file) {
  WeightFileParts parts{.file = std::move(file), .format = "", .metadata = {}, .tensors = {}};
  FileCursor in(parts.file);
  if (std::memcmp(in.Take(4, "the magic number").data(), "GGUF", 4) != 0)
    in.Bad(0, "not a GGUF file: it does not start with the bytes 'GGUF'");
  const auto version = in.Read<uint32_t>("the version");
  if (version != 2 && version != 3)
    in.Bad(4, "GGUF version {} is not supported (2 and 3 are){}", version,
           version % 0x10000 == 0 ? "; it looks like a big-endian file" : "");
  parts.format = fmt::format("GGUF version {}", version);
  constexpr uint64_t kLeastTensorInfo = 8 + 4 + 8 + 4 + 8, kLeastKeyValue = 8 + 4 + 1;
  const uint64_t n_tensors = in.Count(kLeastTensorInfo, "the number of tensors");
  const uint64_t n_keys = in.Count(kLeastKeyValue, "the number of metadata keys");
  ReadMetadata(in, n_keys, parts);
  parts.alignment = ReadAlignment(parts);
  ReadTensorInfos(in, n_tensors, parts);
  parts.data_offset = (in.offset() + parts.alignment - 1) / parts.alignment * parts.alignment;
  for (WeightTensor& t : parts.tensors) {
    if (t.offset % parts.alignment != 0)
      Fail("{}: tensor '{}': its data offset {} is not a multiple of the alignment {}",
           parts.file.name(), Printable(t.spelling), t.offset, parts.alignment);
    // WeightFile refuses whatever lies past the end.
    if (__builtin_add_overflow(t.offset, parts.data_offset, &t.offset))
      t.offset = std::numeric_limits<uint64_t>::max();
  }
  return WeightFile(std::move(parts));
}

}  // namespace lab
