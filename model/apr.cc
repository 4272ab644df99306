#include "model/apr.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "lab/error.h"
#include "lab/names.h"
#include "model/file_cursor.h"
#include "model/hf_names.h"
#include "model/json_metadata.h"

namespace lab {
namespace {

constexpr char kFormat[] = "APR version 2";
constexpr uint64_t kHeaderSize = 64, kAlignment = 64;
constexpr uint16_t kPacked = 0x0007,  // LZ4, ZSTD, encrypted
    kSharded = 0x0010, kRowMajor = 0x0400, kColumnMajor = 0x0800;

struct Header {
  uint16_t flags;
  uint32_t tensors;
  uint64_t metadata_offset, metadata_size, index_offset, data_offset;
};

uint64_t PaddedSize(uint64_t n) {
  return (n + kAlignment - 1) / kAlignment * kAlignment;
}

uint32_t Crc(std::span<const uint8_t> bytes, uint32_t before = 0) {
  return static_cast<uint32_t>(crc32_z(before, bytes.data(), bytes.size()));
}

Header ReadHeader(const FileBytes& file) {
  FileCursor in(file);
  const auto bytes = in.Take(kHeaderSize, "the header");
  in.MoveTo(0, 0, "the header");
  const std::string_view magic = in.Text(4, "the magic number");
  if (magic == "APRN")
    in.Bad(0, "an APR v1 file (a container of classic models); lab reads APR v2");
  if (magic != std::string_view("APR\0", 4))
    in.Bad(0, "not an APR v2 file: it begins with '{}'", Printable(magic));
  const auto major = in.Read<uint8_t>("the version");
  const auto minor = in.Read<uint8_t>("the version");
  if (major != 2) in.Bad(4, "APR version {}.{} is not supported (2 is)", major, minor);
  Header h = {};
  h.flags = in.Read<uint16_t>("the flags");
  h.tensors = in.Read<uint32_t>("the number of tensors");
  h.metadata_offset = in.Read<uint64_t>("the metadata offset");
  h.metadata_size = in.Read<uint32_t>("the metadata size");
  h.index_offset = in.Read<uint64_t>("the index offset");
  h.data_offset = in.Read<uint64_t>("the data offset");
  const auto stored = in.Read<uint32_t>("the header's CRC");
  const uint32_t crc = Crc(bytes.subspan(44), Crc(bytes.first(40)));
  if (crc != stored)
    in.Bad(40, "the header's CRC is {:08x}, but its bytes give {:08x}: the file is damaged", stored,
           crc);
  if (h.flags & kPacked)
    in.Bad(6, "flags {:#06x}: lab reads no compressed or encrypted APR file", h.flags);
  if (h.flags & kSharded) in.Bad(6, "flags {:#06x}: lab reads no APR file in shards", h.flags);
  if (h.flags & kColumnMajor)
    in.Bad(6, "flags {:#06x}: the tensors are column-major, which no APR file may be", h.flags);
  return h;
}

nlohmann::json ReadMetadata(const FileBytes& file, const Header& h) {
  FileCursor in(file);
  in.MoveTo(h.metadata_offset, 12, "the metadata");
  return ParseJsonObject(fmt::format("{}: offset {}: the metadata", file.name(), h.metadata_offset),
                         in.Text(h.metadata_size, "the metadata"));
}

// --- what a type code means ---

struct Meaning {
  std::string_view type;
  Packing packing;
  uint64_t bytes;
};

struct ForeignType {
  uint8_t code;
  std::string_view name;
  uint32_t elements, bytes;
};
// Types of APR and ggml that lab does not compute with.
constexpr ForeignType kForeign[] = {
    {3, "F64", 1, 8},       {4, "I32", 1, 4},         {5, "I64", 1, 8},
    {6, "I8", 1, 1},        {7, "U8", 1, 1},          {3, "Q4_1", 32, 20},
    {7, "Q5_1", 32, 24},    {9, "Q8_1", 32, 36},      {10, "Q2_K", 256, 84},
    {11, "Q3_K", 256, 110}, {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74}};

// Everything that a code may stand for. Codes of APR's own collide with ggml's (8 is APR_Q4 or
// Q8_0, 6 is I8 or Q5_0): the size in the index settles which.
std::vector<Meaning> Meanings(uint8_t code, const WeightTensor& t) {
  const uint64_t n = t.elements();
  std::vector<Meaning> all;
  if (code == 8 || code == 128) all.push_back({"APR_Q4", Packing::apr_q4, (n + 31) / 32 * 18});
  if (code == 9 || code == 129) all.push_back({"APR_Q8", Packing::apr_q8, 4 + n});
  for (const ForeignType& f : kForeign)
    if (f.code == code && n % f.elements == 0)
      all.push_back({f.name, Packing::foreign, n / f.elements * f.bytes});
  if (const BlockTypeInfo* b = FindBlockType(code)) {
    const uint64_t row_blocks = (t.dims[0] + b->elements - 1) / b->elements;
    const bool whole = t.dims[0] % b->elements == 0;
    all.push_back({b->name, whole ? Packing::blocks : Packing::padded_rows,
                   n / t.dims[0] * row_blocks * b->bytes});
  }
  return all;
}

// Sets type, packing and block. `hint`: the type by name, where the metadata says it.
void SetType(const FileBytes& file, uint8_t code, std::string_view hint, WeightTensor& t) {
  std::vector<Meaning> fitting;
  // No type has less than a bit for each value; without this the sizes below could overflow.
  if (t.elements() / 8 <= t.bytes)
    for (const Meaning& m : Meanings(code, t))
      if (m.bytes == t.bytes) fitting.push_back(m);
  if (fitting.empty())
    Fail("{}: tensor '{}': {} values of type code {} cannot be {} bytes; the file is damaged",
         file.name(), Printable(t.spelling), t.elements(), code, t.bytes);
  const auto hinted = std::find_if(fitting.begin(), fitting.end(),
                                   [&](const Meaning& m) { return m.type == hint; });
  const Meaning& m = hinted == fitting.end() ? fitting[0] : *hinted;
  t.type = m.type;
  t.packing = m.packing;
  if (m.packing == Packing::blocks || m.packing == Packing::padded_rows)
    t.block = FindBlockType(code);
  if (m.packing == Packing::padded_rows) t.type += " padded";
}

// --- the index ---

struct IndexEntry {
  WeightTensor tensor;
  uint8_t code;
  std::vector<uint64_t> dims;  ///< as the file has them
};

IndexEntry ReadIndexEntry(FileCursor& in, const Header& h, uint32_t i) {
  const size_t at = in.offset();
  IndexEntry e = {};
  const std::string number = fmt::format("the name of tensor {}", i);
  e.tensor.spelling = in.Text(in.Read<uint16_t>(number), number);
  const std::string what = fmt::format("tensor '{}'", Printable(e.tensor.spelling));
  e.code = in.Read<uint8_t>(what);
  e.dims.resize(in.Read<uint8_t>(what));
  for (uint64_t& dim : e.dims) dim = in.Read<uint64_t>(what);
  if (e.dims.empty()) e.dims = {1};
  e.tensor.offset = in.Read<uint64_t>(what);
  e.tensor.bytes = in.Read<uint64_t>(what);
  if (__builtin_add_overflow(e.tensor.offset, h.data_offset, &e.tensor.offset))
    in.Bad(at, "{}: its data begins past the end of the file", what);
  return e;
}

std::vector<IndexEntry> ReadIndex(const FileBytes& file, const Header& h) {
  FileCursor in(file);
  in.MoveTo(h.index_offset, 24, "the index");
  constexpr uint64_t kLeast = 2 + 1 + 1 + 8 + 8;
  if (h.tensors > in.left() / kLeast)
    in.Bad(8,
           "the number of tensors is {}, but only {} bytes follow in the index: the file is "
           "truncated or damaged",
           h.tensors, in.left());
  std::vector<IndexEntry> entries;
  for (uint32_t i = 0; i < h.tensors; ++i) entries.push_back(ReadIndexEntry(in, h, i));
  if (in.offset() > h.data_offset)
    in.Bad(32, "the data begins at offset {}, inside the index", h.data_offset);
  return entries;
}

void AddTensors(std::vector<IndexEntry> entries, bool gguf_order, const nlohmann::json& hints,
                WeightFileParts& parts) {
  for (IndexEntry& e : entries) {
    WeightTensor& t = e.tensor;
    // Matrices have their row length last in files of `apr import`; three dimensions and more are
    // as in GGUF in both.
    if (!gguf_order && e.dims.size() == 2) std::swap(e.dims[0], e.dims[1]);
    if (const std::string problem = t.SetShape(e.dims.size(), e.dims.data()); !problem.empty())
      Fail("{}: tensor '{}' {}", parts.file.name(), Printable(t.spelling), problem);
    const auto hint = hints.find(std::string(t.spelling));
    SetType(parts.file, e.code,
            hint != hints.end() && hint->is_string() ? hint->get_ref<const std::string&>() : "", t);
    t.name = GgufTensorName(t.spelling);
    parts.tensors.push_back(std::move(t));
  }
}

// --- the end of the file ---

// Where the tensors end, with the padding of the last one and without.
struct End {
  uint64_t bare, padded;
};

End EndOf(uint64_t data_offset, std::span<const WeightTensor> tensors) {
  End end = {data_offset, data_offset};
  for (const WeightTensor& t : tensors) {
    end.bare = std::max(end.bare, t.offset + t.bytes);
    end.padded = std::max(end.padded, t.offset + PaddedSize(t.bytes));
  }
  return end;
}

bool HasFooter(uint64_t size, const End& end) {
  return size == end.padded + 4 || (size == end.bare + 4 && size != end.padded);
}

void CheckEnd(const WeightFile& apr) {
  const End end = EndOf(apr.data_offset(), apr.tensors());
  const uint64_t size = apr.file().bytes().size();
  if (size != end.bare && size != end.padded && !HasFooter(size, end))
    Fail(
        "{}: offset {}: the tensors end here and a CRC of 4 bytes may follow, but the file ends "
        "at {}: it is truncated or damaged",
        apr.file().name(), end.padded, size);
}

}  // namespace

WeightFile ReadApr(FileBytes file) {
  WeightFileParts parts{.file = std::move(file), .format = kFormat, .metadata = {}, .tensors = {}};
  const Header h = ReadHeader(parts.file);
  nlohmann::json metadata = ReadMetadata(parts.file, h);
  std::vector<IndexEntry> entries = ReadIndex(parts.file, h);
  parts.alignment = kAlignment;
  parts.data_offset = h.data_offset;

  const bool blk_names = std::any_of(entries.begin(), entries.end(), [](const IndexEntry& e) {
    return e.tensor.spelling.starts_with("blk.");
  });
  const bool gguf_order = metadata.value("model_type", nlohmann::json()) == "transformer_lm_q4k" ||
                          (!(h.flags & kRowMajor) && blk_names);
  parts.hf_names = !blk_names;
  const nlohmann::json hints = metadata.value("ggml_types", nlohmann::json::object());
  AddTensors(std::move(entries), gguf_order, hints, parts);

  for (const char* repeats_the_index : {"ggml_types", "tensor_shapes"})
    metadata.erase(repeats_the_index);
  AddJsonMetadata(parts, "", std::move(metadata), h.metadata_offset);
  SpellQwen2Keys(parts, std::array{std::string_view("")}, /*hf=*/false);
  for (const auto& [gguf, apr] : {std::pair{"tokens", "vocabulary"},
                                  {"merges", "merges"},
                                  {"token_type", "token_type"},
                                  {"model", "model"},
                                  {"pre", "pre_type"},
                                  {"eos_token_id", "eos_token_id"}})
    parts.spelling[fmt::format("tokenizer.ggml.{}", gguf)] = fmt::format("tokenizer.{}", apr);
  WeightFile apr(std::move(parts));
  CheckEnd(apr);
  return apr;
}

AprFooter CheckAprFooter(const WeightFile& file) {
  const std::span<const uint8_t> bytes = file.file().bytes();
  if (file.format() != kFormat ||
      !HasFooter(bytes.size(), EndOf(file.data_offset(), file.tensors())))
    return AprFooter::absent;
  uint32_t stored;
  std::memcpy(&stored, bytes.data() + bytes.size() - 4, sizeof stored);
  return Crc(bytes.first(bytes.size() - 4)) == stored ? AprFooter::right : AprFooter::wrong;
}

}  // namespace lab
