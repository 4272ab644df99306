#pragma once
// A file of weights, whatever its format: named tensors, the metadata beside them, and look-up by
// GGUF's names. Readers (model/gguf.h, model/apr.h, model/hf.h) fill in a WeightFileParts; the
// constructor of WeightFile checks what all formats share, so that users need not.
#include <array>
#include <cstdint>
#include <map>
#include <memory>
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

/// Values are the type numbers of GGUF metadata.
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
struct MetaArray {
  GgufType element;
  size_t size;
  std::span<const uint8_t> bytes;         ///< of number elements
  std::vector<std::string_view> strings;  ///< of string elements

  /// Element i of an integer array.
  int64_t Integer(size_t i) const;
};

struct MetaValue {
  std::variant<uint64_t, int64_t, double, bool, std::string_view, MetaArray> value;

  std::optional<uint64_t> Unsigned() const;
  /// For people: numbers and strings as they are, arrays as "[151936 strings] a, b, c, ...".
  std::string ToText() const;
};

struct MetaKeyValue {
  std::string_view key;          ///< as the file spells it
  std::optional<size_t> offset;  ///< of the key in the file, where the format has one
  MetaValue value;
};

/// How the values of a tensor lie in its bytes.
enum class Packing {
  blocks,       ///< rows of whole blocks of `block`: what lab computes with
  padded_rows,  ///< blocks of `block`, the last one of each row filled up
  apr_q4,       ///< APR's own four bits, see DequantFlat
  apr_q8,       ///< APR's own eight bits
  foreign       ///< bytes that lab only passes by
};

struct WeightTensor {
  std::string name;           ///< GGUF's name: blk.3.attn_q.weight
  std::string_view spelling;  ///< the file's name: model.layers.3.self_attn.q_proj.weight
  std::string type;           ///< "Q4_K"; "type 23" where lab has no name for it
  Packing packing = Packing::foreign;
  const BlockTypeInfo* block = nullptr;         ///< of Packing::blocks and padded_rows, else null
  std::array<uint64_t, 4> dims = {1, 1, 1, 1};  ///< dims[0] is the row length; unused ones are 1
  uint32_t n_dims = 1;
  uint64_t offset = 0;            ///< of the data in the file
  uint64_t bytes = 0;             ///< 0 when unknown
  const uint8_t* data = nullptr;  ///< null when `bytes` is unknown

  uint64_t elements() const { return dims[0] * dims[1] * dims[2] * dims[3]; }
  /// Sets `dims` from `n` sizes, row length first. Returns what is wrong with them ("has a
  /// dimension of 0"), "" when there are 1 to 4, all positive, with a product up to 2^60.
  std::string SetShape(uint64_t n, const uint64_t* sizes);
  /// Sets type, packing and block from GGUF's type number.
  void SetGgufType(uint32_t number);
};

/// out[i] = value first + i of tensor `t` in storage order (row after row), n of them; false when
/// lab cannot decode them (Packing::foreign). APR_Q4: blocks of 32, half-float scale (not finite
/// or subnormal: 0) times nibble - 8, even values in the low nibbles. APR_Q8: one float32 scale
/// for the tensor, then int8. Source: aprender, crates/apr-format.
bool DequantFlat(const WeightTensor& t, uint64_t first, size_t n, float* out);

/// What a reader hands over. Names are checked, offsets are not yet.
struct WeightFileParts {
  FileBytes file;
  std::string format;  ///< "GGUF version 3"
  uint64_t alignment = 1, data_offset = 0;
  std::vector<MetaKeyValue> metadata;
  std::vector<WeightTensor> tensors;  ///< `data` is filled in by WeightFile
  /// How the file spells a key of GGUF's, where it does so otherwise.
  std::map<std::string, std::string, std::less<>> spelling = {};
  bool hf_names = false;                                 ///< tensors have Hugging Face's names
  std::vector<std::shared_ptr<const void>> owners = {};  ///< of strings and numbers in `metadata`
};

class WeightFile {
 public:
  /// Throws Error unless every tensor has a name of its own and lies inside the file, in whole
  /// blocks, aligned for reading in place, apart from all others.
  explicit WeightFile(WeightFileParts parts);

  const FileBytes& file() const { return p_.file; }
  const std::string& format() const { return p_.format; }
  uint64_t alignment() const { return p_.alignment; }
  uint64_t data_offset() const { return p_.data_offset; }
  const std::vector<MetaKeyValue>& metadata() const { return p_.metadata; }
  const std::vector<WeightTensor>& tensors() const { return p_.tensors; }

  /// By GGUF's name.
  const WeightTensor* FindTensor(std::string_view name) const;
  /// How this file spells GGUF's name of a key or tensor, for messages.
  std::string KeySpelling(std::string_view key) const;
  std::string TensorSpelling(std::string_view name) const;

  /// The value of a key (GGUF's name) as that kind. Absent: nullopt or null. Another kind: Error.
  std::optional<uint64_t> Unsigned(std::string_view key) const;
  std::optional<double> Number(std::string_view key) const;
  std::optional<bool> Bool(std::string_view key) const;
  std::optional<std::string_view> String(std::string_view key) const;
  const MetaArray* Strings(std::string_view key) const;
  const MetaArray* Integers(std::string_view key) const;

 private:
  void PlaceTensors();
  const MetaKeyValue* Find(std::string_view key) const;
  [[noreturn]] void WrongKind(const MetaKeyValue& kv, std::string_view wanted) const;

  WeightFileParts p_;
  std::unordered_map<std::string_view, size_t> tensor_index_;
};

/// Reads a GGUF, APR or safetensors file, told apart by its first bytes. Throws Error.
WeightFile ReadWeightFile(FileBytes file);

/// True when `path` names a synthetic shape or a file that begins like a weight file; a
/// safetensors file only if it has a tensor "....weight", which dumps of taps have not.
bool IsWeightFile(const std::string& path);

/// The bytes of `model`: a file path, or a synthetic shape (model/synth.h: tiny, random:1.5b, ...).
FileBytes OpenModelBytes(const std::string& model);

}  // namespace lab
