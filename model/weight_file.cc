#include "model/weight_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "lab/error.h"
#include "lab/names.h"
#include "lab/safetensors.h"
#include "model/apr.h"
#include "model/gguf.h"
#include "model/hf.h"
#include "model/hf_names.h"
#include "model/synth.h"
#include "reference/dequant_ref.h"

namespace lab {

static_assert(std::endian::native == std::endian::little, "numbers are read in place");

namespace {

template <class T>
T LoadAt(std::span<const uint8_t> bytes, size_t i) {
  T value;
  std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
  return value;
}

std::string ElementText(const MetaArray& a, size_t i) {
  if (a.element == GgufType::string) return Printable(a.strings[i], 24);
  if (a.element == GgufType::f32) return fmt::format("{:.9g}", LoadAt<float>(a.bytes, i));
  if (a.element == GgufType::f64) return fmt::format("{:.17g}", LoadAt<double>(a.bytes, i));
  return fmt::format("{}", a.Integer(i));
}

// Kernels read the 16-bit fields of blocks and the floats of F32 in place.
uint64_t AlignmentOf(const BlockTypeInfo& block) {
  return block.type == BlockType::F32 ? 4 : 2;
}

// Whole blocks of `elements` values of `bytes` bytes; only those that hold values
// [first, first + n) are decoded.
void DequantBlocks(const BlockTypeInfo& block, const uint8_t* data, uint64_t first, size_t n,
                   float* out) {
  std::vector<float> part(block.elements);
  while (n > 0) {
    const uint64_t skip = first % block.elements;
    const uint8_t* at = data + first / block.elements * block.bytes;
    size_t taken = n / block.elements * block.elements;
    if (skip == 0 && taken > 0) {
      DequantRow(block.type, at, taken, out);
    } else {
      taken = std::min<size_t>(n, block.elements - skip);
      DequantRow(block.type, at, block.elements, part.data());
      std::copy_n(part.data() + skip, taken, out);
    }
    first += taken, out += taken, n -= taken;
  }
}

void DequantPaddedRows(const WeightTensor& t, uint64_t first, size_t n, float* out) {
  const uint64_t cols = t.dims[0];
  const uint64_t row_bytes = (cols + t.block->elements - 1) / t.block->elements * t.block->bytes;
  while (n > 0) {
    const uint64_t c = first % cols;
    const size_t taken = std::min<size_t>(n, cols - c);
    DequantBlocks(*t.block, t.data + first / cols * row_bytes, c, taken, out);
    first += taken, out += taken, n -= taken;
  }
}

float AprQ4At(const uint8_t* data, uint64_t i) {
  const uint8_t* block = data + i / 32 * 18;
  const uint64_t k = i % 32;
  const float scale = HalfToFloat(LoadAt<uint16_t>({block, 2}, 0));
  const bool normal = std::isfinite(scale) && std::abs(scale) >= 0x1p-14f;
  const int nibble = block[2 + k / 2] >> 4 * (k % 2) & 15;
  return static_cast<float>(nibble - 8) * (normal ? scale : 0.0f);
}

}  // namespace

int64_t MetaArray::Integer(size_t i) const {
  switch (element) {
    case GgufType::u8:
    case GgufType::boolean:
      return LoadAt<uint8_t>(bytes, i);
    case GgufType::i8:
      return LoadAt<int8_t>(bytes, i);
    case GgufType::u16:
      return LoadAt<uint16_t>(bytes, i);
    case GgufType::i16:
      return LoadAt<int16_t>(bytes, i);
    case GgufType::u32:
      return LoadAt<uint32_t>(bytes, i);
    case GgufType::i32:
      return LoadAt<int32_t>(bytes, i);
    default:
      return LoadAt<int64_t>(bytes, i);
  }
}

std::optional<uint64_t> MetaValue::Unsigned() const {
  if (const auto* number = std::get_if<uint64_t>(&value)) return *number;
  const auto* number = std::get_if<int64_t>(&value);
  return number && *number >= 0 ? std::optional<uint64_t>(*number) : std::nullopt;
}

std::string MetaValue::ToText() const {
  if (const auto* text = std::get_if<std::string_view>(&value)) return Printable(*text, 100);
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* number = std::get_if<double>(&value)) return fmt::format("{:.9g}", *number);
  if (const auto* number = std::get_if<uint64_t>(&value)) return fmt::format("{}", *number);
  if (const auto* number = std::get_if<int64_t>(&value)) return fmt::format("{}", *number);
  const auto& array = std::get<MetaArray>(value);
  const bool strings = array.element == GgufType::string;
  std::string text = fmt::format("[{} {}]", array.size, strings ? "strings" : "numbers");
  for (size_t i = 0; i < std::min<size_t>(array.size, 5); ++i)
    text += (i ? ", " : " ") + ElementText(array, i);
  return array.size > 5 ? text + ", ..." : text;
}

std::string WeightTensor::SetShape(uint64_t n, const uint64_t* sizes) {
  if (n < 1 || n > dims.size()) return fmt::format("has {} dimensions (1 to 4 are possible)", n);
  n_dims = static_cast<uint32_t>(n);
  dims.fill(1);
  uint64_t product = 1;
  for (uint64_t d = 0; d < n; ++d) {
    if (sizes[d] == 0) return "has a dimension of 0";
    if (sizes[d] > (uint64_t{1} << 60) / product) return "has an impossible shape";
    dims[d] = sizes[d];
    product *= sizes[d];
  }
  return "";
}

void WeightTensor::SetGgufType(uint32_t number) {
  block = FindBlockType(number);
  packing = block ? Packing::blocks : Packing::foreign;
  type = block ? std::string(block->name) : fmt::format("type {}", number);
}

bool DequantFlat(const WeightTensor& t, uint64_t first, size_t n, float* out) {
  switch (t.packing) {
    case Packing::blocks:
      DequantBlocks(*t.block, t.data, first, n, out);
      return true;
    case Packing::padded_rows:
      DequantPaddedRows(t, first, n, out);
      return true;
    case Packing::apr_q4:
      for (size_t i = 0; i < n; ++i) out[i] = AprQ4At(t.data, first + i);
      return true;
    case Packing::apr_q8: {
      const auto scale = LoadAt<float>({t.data, 4}, 0);
      for (size_t i = 0; i < n; ++i)
        out[i] = static_cast<float>(static_cast<int8_t>(t.data[4 + first + i])) * scale;
      return true;
    }
    case Packing::foreign:
      return false;
  }
  return false;
}

WeightFile::WeightFile(WeightFileParts parts) : p_(std::move(parts)) {
  for (size_t i = 0; i < p_.tensors.size(); ++i) {
    const auto [it, is_new] = tensor_index_.emplace(p_.tensors[i].name, i);
    if (is_new) continue;
    const std::string a = Printable(p_.tensors[it->second].spelling),
                      b = Printable(p_.tensors[i].spelling);
    if (a == b) Fail("{}: tensor '{}' appears twice", file().name(), a);
    Fail("{}: tensors '{}' and '{}' are two names of the same", file().name(), a, b);
  }
  PlaceTensors();
}

// Turns offsets into pointers; every tensor must lie inside the file, alone.
void WeightFile::PlaceTensors() {
  const uint64_t file_size = file().bytes().size();
  std::vector<const WeightTensor*> by_offset;
  for (WeightTensor& t : p_.tensors) {
    const std::string what = fmt::format("{}: tensor '{}'", file().name(), Printable(t.spelling));
    if (t.offset > file_size)
      Fail(
          "{}: its data begins at offset {} past the end of the file ({} bytes); the file is "
          "truncated",
          what, t.offset, file_size);
    if (t.packing == Packing::blocks) {
      if (t.dims[0] % t.block->elements != 0)
        Fail("{}: rows of {} values cannot be {}, which comes in blocks of {}", what, t.dims[0],
             t.block->name, t.block->elements);
      t.bytes = t.elements() / t.block->elements * t.block->bytes;
    }
    if (t.bytes == 0) continue;
    if (t.bytes > file_size - t.offset)
      Fail(
          "{}: its data ends at offset {} past the end of the file ({} bytes); the file is "
          "truncated",
          what, t.offset + t.bytes, file_size);
    if (t.block && t.offset % AlignmentOf(*t.block) != 0)
      Fail(
          "{}: its data at offset {} is not aligned to {} bytes, as {} must be to be read in "
          "place; write the file anew with a current version of its writer",
          what, t.offset, AlignmentOf(*t.block), t.block->name);
    t.data = file().bytes().data() + t.offset;
    by_offset.push_back(&t);
  }
  std::sort(by_offset.begin(), by_offset.end(),
            [](const WeightTensor* a, const WeightTensor* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < by_offset.size(); ++i)
    if (by_offset[i]->offset < by_offset[i - 1]->offset + by_offset[i - 1]->bytes)
      Fail("{}: tensors '{}' and '{}' overlap at offset {}", file().name(),
           Printable(by_offset[i - 1]->spelling), Printable(by_offset[i]->spelling),
           by_offset[i]->offset);
}

std::string WeightFile::KeySpelling(std::string_view key) const {
  const auto it = p_.spelling.find(key);
  return it == p_.spelling.end() ? std::string(key) : it->second;
}

std::string WeightFile::TensorSpelling(std::string_view name) const {
  if (const WeightTensor* t = FindTensor(name)) return Printable(t->spelling);
  return p_.hf_names ? HfTensorName(name) : std::string(name);
}

const MetaKeyValue* WeightFile::Find(std::string_view key) const {
  const std::string spelled = KeySpelling(key);
  for (const MetaKeyValue& kv : p_.metadata)
    if (kv.key == spelled) return &kv;
  return nullptr;
}

const WeightTensor* WeightFile::FindTensor(std::string_view name) const {
  const auto it = tensor_index_.find(name);
  return it == tensor_index_.end() ? nullptr : &p_.tensors[it->second];
}

void WeightFile::WrongKind(const MetaKeyValue& kv, std::string_view wanted) const {
  const std::string place = kv.offset ? fmt::format("offset {}: ", *kv.offset) : "";
  Fail("{}: {}key '{}' is not {}", file().name(), place, kv.key, wanted);
}

std::optional<uint64_t> WeightFile::Unsigned(std::string_view key) const {
  const MetaKeyValue* found = Find(key);
  if (!found) return std::nullopt;
  const std::optional<uint64_t> number = found->value.Unsigned();
  if (!number) WrongKind(*found, "an unsigned number");
  return number;
}

std::optional<double> WeightFile::Number(std::string_view key) const {
  const MetaKeyValue* found = Find(key);
  if (!found) return std::nullopt;
  const auto* number = std::get_if<double>(&found->value.value);
  if (!number) WrongKind(*found, "a floating-point number");
  return *number;
}

std::optional<bool> WeightFile::Bool(std::string_view key) const {
  const MetaKeyValue* found = Find(key);
  if (!found) return std::nullopt;
  const auto* flag = std::get_if<bool>(&found->value.value);
  if (!flag) WrongKind(*found, "a bool");
  return *flag;
}

std::optional<std::string_view> WeightFile::String(std::string_view key) const {
  const MetaKeyValue* found = Find(key);
  if (!found) return std::nullopt;
  const auto* text = std::get_if<std::string_view>(&found->value.value);
  if (!text) WrongKind(*found, "a string");
  return *text;
}

const MetaArray* WeightFile::Strings(std::string_view key) const {
  const MetaKeyValue* found = Find(key);
  if (!found) return nullptr;
  const auto* array = std::get_if<MetaArray>(&found->value.value);
  if (!array || array->element != GgufType::string) WrongKind(*found, "an array of strings");
  return array;
}

const MetaArray* WeightFile::Integers(std::string_view key) const {
  const MetaKeyValue* found = Find(key);
  if (!found) return nullptr;
  const auto* array = std::get_if<MetaArray>(&found->value.value);
  if (!array || array->element == GgufType::string || array->element == GgufType::f32 ||
      array->element == GgufType::f64)
    WrongKind(*found, "an array of integers");
  return array;
}

WeightFile ReadWeightFile(FileBytes file) {
  const auto begins = [&](std::string_view magic, size_t at = 0) {
    const auto bytes = file.bytes();
    return bytes.size() >= at + magic.size() &&
           std::memcmp(bytes.data() + at, magic.data(), magic.size()) == 0;
  };
  if (begins("GGUF")) return ReadGguf(std::move(file));
  if (begins("APR")) return ReadApr(std::move(file));
  if (begins("{", 8)) return ReadHf(std::move(file));
  Fail(
      "{}: offset 0: not a GGUF, APR or safetensors file: it begins with neither 'GGUF' nor 'APR' "
      "nor a length and '{{'",
      file.name());
}

bool IsWeightFile(const std::string& path) {
  if (IsSynthShape(path)) return true;
  struct stat st;
  if (stat(path.c_str(), &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < 9) return false;
  const FileBytes file = FileBytes::Map(path);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                              file.bytes().size());
  if (text.starts_with("GGUF") || text.starts_with("APR")) return true;
  if (text[8] != '{') return false;
  const SafetensorsHeader header = ReadSafetensorsHeader(file);
  return std::any_of(header.entries.begin(), header.entries.end(),
                     [](const SafetensorsEntry& e) { return e.name.ends_with(".weight"); });
}

FileBytes OpenModelBytes(const std::string& model) {
  if (IsSynthShape(model)) return FileBytes::FromMemory(model, MakeSynthGguf(model));
  // Without a slash it may be a mistyped shape.
  if (model.find('/') == std::string::npos && access(model.c_str(), F_OK) != 0)
    Fail("{}: cannot open: {}; nor is it one of the synthetic shapes {}", Printable(model),
         std::strerror(errno), SynthShapeNames());
  return FileBytes::Map(model);
}

}  // namespace lab
