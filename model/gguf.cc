#include "model/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_set>

#include "lab/error.h"
#include "lab/names.h"

namespace lab {

static_assert(std::endian::native == std::endian::little, "GGUF numbers are read in place");

// Reads little-endian numbers and strings in order; refuses to step past the end.
class GgufCursor {
 public:
  GgufCursor(const std::string& file, std::span<const uint8_t> bytes)
      : file_(file), bytes_(bytes) {}

  size_t offset() const { return offset_; }
  size_t left() const { return bytes_.size() - offset_; }

  template <class... A>
  [[noreturn]] void Bad(size_t offset, fmt::format_string<A...> format, A&&... args) const {
    Fail("{}: offset {}: {}", file_, offset, fmt::format(format, std::forward<A>(args)...));
  }

  std::span<const uint8_t> Take(uint64_t n, std::string_view what) {
    if (n > left())
      Bad(offset_, "{} needs {} bytes, {} are left: the file is truncated or damaged", what, n,
          left());
    const auto taken = bytes_.subspan(offset_, n);
    offset_ += n;
    return taken;
  }

  template <class T>
  T Read(std::string_view what) {
    T value;
    std::memcpy(&value, Take(sizeof value, what).data(), sizeof value);
    return value;
  }

  std::string_view String(std::string_view what) {
    const auto n = Read<uint64_t>(what);
    const auto bytes = Take(n, what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  // A count of things of at least `least` bytes each: more cannot follow in this file.
  uint64_t Count(uint64_t least, std::string_view what) {
    const size_t at = offset_;
    const auto n = Read<uint64_t>(what);
    if (n > left() / least)
      Bad(at, "{} says {}, but only {} bytes follow: the file is truncated or damaged", what, n,
          left());
    return n;
  }

 private:
  const std::string& file_;
  std::span<const uint8_t> bytes_;
  size_t offset_ = 0;
};

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

GgufType ReadType(GgufCursor& in, std::string_view what) {
  const size_t at = in.offset();
  const auto type = in.Read<uint32_t>(what);
  if (type > static_cast<uint32_t>(GgufType::f64))
    in.Bad(at, "{}: unknown value type {}", what, type);
  return static_cast<GgufType>(type);
}

GgufArray ReadArray(GgufCursor& in, std::string_view what) {
  const size_t at = in.offset();
  GgufArray array = {};
  array.element = ReadType(in, what);
  if (array.element == GgufType::array)
    in.Bad(at, "{}: an array of arrays, which no model file uses", what);
  if (array.element == GgufType::string) {
    array.size = in.Count(sizeof(uint64_t), what);
    array.strings.reserve(array.size);
    for (size_t i = 0; i < array.size; ++i) array.strings.push_back(in.String(what));
  } else {
    array.size = in.Count(SizeOf(array.element), what);
    array.bytes = in.Take(array.size * SizeOf(array.element), what);
  }
  return array;
}

GgufValue ReadValue(GgufCursor& in, std::string_view what) {
  const GgufType type = ReadType(in, what);
  switch (type) {
    case GgufType::u8:
      return {type, uint64_t{in.Read<uint8_t>(what)}};
    case GgufType::u16:
      return {type, uint64_t{in.Read<uint16_t>(what)}};
    case GgufType::u32:
      return {type, uint64_t{in.Read<uint32_t>(what)}};
    case GgufType::u64:
      return {type, in.Read<uint64_t>(what)};
    case GgufType::i8:
      return {type, int64_t{in.Read<int8_t>(what)}};
    case GgufType::i16:
      return {type, int64_t{in.Read<int16_t>(what)}};
    case GgufType::i32:
      return {type, int64_t{in.Read<int32_t>(what)}};
    case GgufType::i64:
      return {type, in.Read<int64_t>(what)};
    case GgufType::f32:
      return {type, double{in.Read<float>(what)}};
    case GgufType::f64:
      return {type, in.Read<double>(what)};
    case GgufType::boolean: {
      const size_t at = in.offset();
      const auto byte = in.Read<uint8_t>(what);
      if (byte > 1) in.Bad(at, "{}: a bool holds {}", what, byte);
      return {type, byte == 1};
    }
    case GgufType::string:
      return {type, in.String(what)};
    case GgufType::array:
      return {type, ReadArray(in, what)};
  }
  in.Bad(in.offset(), "{}: unknown value type", what);
}

template <class T>
T LoadAt(const GgufArray& a, size_t i) {
  T value;
  std::memcpy(&value, a.bytes.data() + i * sizeof(T), sizeof(T));
  return value;
}

std::string ElementText(const GgufArray& a, size_t i) {
  if (a.element == GgufType::string) return Printable(a.strings[i], 24);
  if (a.element == GgufType::f32) return fmt::format("{:.9g}", LoadAt<float>(a, i));
  if (a.element == GgufType::f64) return fmt::format("{:.17g}", LoadAt<double>(a, i));
  return fmt::format("{}", a.Integer(i));
}

}  // namespace

int64_t GgufArray::Integer(size_t i) const {
  switch (element) {
    case GgufType::u8:
    case GgufType::boolean:
      return LoadAt<uint8_t>(*this, i);
    case GgufType::i8:
      return LoadAt<int8_t>(*this, i);
    case GgufType::u16:
      return LoadAt<uint16_t>(*this, i);
    case GgufType::i16:
      return LoadAt<int16_t>(*this, i);
    case GgufType::u32:
      return LoadAt<uint32_t>(*this, i);
    case GgufType::i32:
      return LoadAt<int32_t>(*this, i);
    default:
      return LoadAt<int64_t>(*this, i);
  }
}

std::string GgufValue::ToText() const {
  if (const auto* text = std::get_if<std::string_view>(&value)) return Printable(*text, 100);
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* number = std::get_if<double>(&value)) return fmt::format("{:.9g}", *number);
  if (const auto* number = std::get_if<uint64_t>(&value)) return fmt::format("{}", *number);
  if (const auto* number = std::get_if<int64_t>(&value)) return fmt::format("{}", *number);
  const auto& array = std::get<GgufArray>(value);
  const bool strings = array.element == GgufType::string;
  std::string text = fmt::format("[{} {}]", array.size, strings ? "strings" : "numbers");
  for (size_t i = 0; i < std::min<size_t>(array.size, 5); ++i)
    text += (i ? ", " : " ") + ElementText(array, i);
  return array.size > 5 ? text + ", ..." : text;
}

std::string GgufTensor::TypeName() const {
  return block() ? std::string(block()->name) : fmt::format("type {}", type);
}

Gguf::Gguf(FileBytes file) : file_(std::move(file)) {
  GgufCursor in(file_.name(), file_.bytes());
  if (std::memcmp(in.Take(4, "the magic number").data(), "GGUF", 4) != 0)
    in.Bad(0, "not a GGUF file: it does not start with the bytes 'GGUF'");
  version_ = in.Read<uint32_t>("the version");
  if (version_ != 2 && version_ != 3)
    in.Bad(4, "GGUF version {} is not supported (2 and 3 are){}", version_,
           version_ % 0x10000 == 0 ? "; it looks like a big-endian file" : "");
  constexpr uint64_t kLeastTensorInfo = 8 + 4 + 8 + 4 + 8, kLeastKeyValue = 8 + 4 + 1;
  const uint64_t n_tensors = in.Count(kLeastTensorInfo, "the number of tensors");
  const uint64_t n_keys = in.Count(kLeastKeyValue, "the number of metadata keys");

  std::unordered_set<std::string_view> seen;
  for (uint64_t i = 0; i < n_keys; ++i) {
    const size_t at = in.offset();
    const std::string_view key = in.String(fmt::format("the name of metadata key {}", i));
    const std::string what = fmt::format("key '{}'", Printable(key));
    if (!seen.insert(key).second) in.Bad(at, "{} appears twice", what);
    metadata_.push_back({key, at, ReadValue(in, what)});
  }
  if (const auto alignment = Unsigned("general.alignment")) alignment_ = *alignment;
  if (alignment_ == 0 || alignment_ % 8 != 0 || alignment_ > (1u << 20))
    Fail("{}: general.alignment is {}, which is not a multiple of 8 up to 1 MiB", file_.name(),
         alignment_);
  ReadTensorInfos(in, n_tensors);
  data_offset_ = (in.offset() + alignment_ - 1) / alignment_ * alignment_;
  PlaceTensors();
}

void Gguf::ReadTensorInfos(GgufCursor& in, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    const size_t at = in.offset();
    GgufTensor t = {};
    t.name = in.String(fmt::format("the name of tensor {}", i));
    const std::string what = fmt::format("tensor '{}'", Printable(t.name));
    if (!tensor_index_.emplace(t.name, i).second) in.Bad(at, "{} appears twice", what);
    t.n_dims = in.Read<uint32_t>(what);
    if (t.n_dims < 1 || t.n_dims > 4)
      in.Bad(at, "{} has {} dimensions (1 to 4 are possible)", what, t.n_dims);
    t.dims.fill(1);
    uint64_t elements = 1;
    for (uint32_t d = 0; d < t.n_dims; ++d) {
      t.dims[d] = in.Read<uint64_t>(what);
      if (t.dims[d] == 0) in.Bad(at, "{} has a dimension of 0", what);
      if (t.dims[d] > (uint64_t{1} << 60) / elements)
        in.Bad(at, "{} has an impossible shape", what);
      elements *= t.dims[d];
    }
    t.type = in.Read<uint32_t>(what);
    t.offset = in.Read<uint64_t>(what);
    tensors_.push_back(t);
  }
}

// Turns relative offsets into pointers; every tensor must lie inside the file, alone.
void Gguf::PlaceTensors() {
  const uint64_t file_size = file_.bytes().size();
  std::vector<const GgufTensor*> by_offset;
  for (GgufTensor& t : tensors_) {
    const std::string what = fmt::format("{}: tensor '{}'", file_.name(), Printable(t.name));
    if (t.offset % alignment_ != 0)
      Fail("{}: its data offset {} is not a multiple of the alignment {}", what, t.offset,
           alignment_);
    if (t.offset > file_size || data_offset_ > file_size - t.offset)
      Fail(
          "{}: its data begins at offset {} past the end of the file ({} bytes); the file is "
          "truncated",
          what, data_offset_ + t.offset, file_size);
    t.offset += data_offset_;
    const BlockTypeInfo* block = t.block();
    if (!block) continue;
    if (t.dims[0] % block->elements != 0)
      Fail("{}: rows of {} values cannot be {}, which comes in blocks of {}", what, t.dims[0],
           block->name, block->elements);
    t.bytes = t.elements() / block->elements * block->bytes;
    if (t.bytes > file_size - t.offset)
      Fail(
          "{}: its data ends at offset {} past the end of the file ({} bytes); the file is "
          "truncated",
          what, t.offset + t.bytes, file_size);
    t.data = file_.bytes().data() + t.offset;
    by_offset.push_back(&t);
  }
  std::sort(by_offset.begin(), by_offset.end(),
            [](const GgufTensor* a, const GgufTensor* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < by_offset.size(); ++i)
    if (by_offset[i]->offset < by_offset[i - 1]->offset + by_offset[i - 1]->bytes)
      Fail("{}: tensors '{}' and '{}' overlap at offset {}", file_.name(),
           Printable(by_offset[i - 1]->name), Printable(by_offset[i]->name), by_offset[i]->offset);
}

const GgufValue* Gguf::Find(std::string_view key) const {
  for (const GgufKeyValue& kv : metadata_)
    if (kv.key == key) return &kv.value;
  return nullptr;
}

const GgufTensor* Gguf::FindTensor(std::string_view name) const {
  const auto it = tensor_index_.find(name);
  return it == tensor_index_.end() ? nullptr : &tensors_[it->second];
}

void Gguf::WrongKind(std::string_view key, std::string_view wanted) const {
  for (const GgufKeyValue& kv : metadata_)
    if (kv.key == key)
      Fail("{}: offset {}: key '{}' is not {}", file_.name(), kv.offset, key, wanted);
  Fail("{}: key '{}' is not {}", file_.name(), key, wanted);
}

std::optional<uint64_t> Gguf::Unsigned(std::string_view key) const {
  const GgufValue* found = Find(key);
  if (!found) return std::nullopt;
  if (const auto* number = std::get_if<uint64_t>(&found->value)) return *number;
  const auto* number = std::get_if<int64_t>(&found->value);
  if (!number || *number < 0) WrongKind(key, "an unsigned number");
  return static_cast<uint64_t>(*number);
}

std::optional<double> Gguf::Number(std::string_view key) const {
  const GgufValue* found = Find(key);
  if (!found) return std::nullopt;
  const auto* number = std::get_if<double>(&found->value);
  if (!number) WrongKind(key, "a floating-point number");
  return *number;
}

std::optional<bool> Gguf::Bool(std::string_view key) const {
  const GgufValue* found = Find(key);
  if (!found) return std::nullopt;
  const auto* flag = std::get_if<bool>(&found->value);
  if (!flag) WrongKind(key, "a bool");
  return *flag;
}

std::optional<std::string_view> Gguf::String(std::string_view key) const {
  const GgufValue* found = Find(key);
  if (!found) return std::nullopt;
  const auto* text = std::get_if<std::string_view>(&found->value);
  if (!text) WrongKind(key, "a string");
  return *text;
}

const GgufArray* Gguf::Strings(std::string_view key) const {
  const GgufValue* found = Find(key);
  if (!found) return nullptr;
  const auto* array = std::get_if<GgufArray>(&found->value);
  if (!array || array->element != GgufType::string) WrongKind(key, "an array of strings");
  return array;
}

const GgufArray* Gguf::Integers(std::string_view key) const {
  const GgufValue* found = Find(key);
  if (!found) return nullptr;
  const auto* array = std::get_if<GgufArray>(&found->value);
  if (!array || array->element == GgufType::string || array->element == GgufType::f32 ||
      array->element == GgufType::f64)
    WrongKind(key, "an array of integers");
  return array;
}

}  // namespace lab
