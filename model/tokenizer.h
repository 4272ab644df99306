#pragma once
// Byte-level BPE as Qwen2 uses it: special tokens are cut out first, the text between them is
// normalised to NFC, split by the qwen2 pattern, and each piece merged by rank.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/weight_file.h"

namespace lab {

class Tokenizer {
 public:
  /// From the vocabulary of a weight file, which must outlive the tokenizer. Where the file gives
  /// no token types, special are those that are neither a byte nor the result of a merge. Throws
  /// Error when it holds none, or when tokens, types and merges do not fit each other.
  explicit Tokenizer(const WeightFile& file);
  ~Tokenizer();

  size_t vocab() const { return tokens_->size; }
  bool IsEndOfText(int32_t id) const;

  /// Token ids of well-formed UTF-8; throws Error with the byte offset otherwise.
  std::vector<int32_t> Encode(std::string_view text) const;
  /// The bytes of one token; they need not be whole characters. `id` must be below vocab().
  std::string Decode(int32_t id) const;
  std::string Decode(std::span<const int32_t> ids) const;

 private:
  struct Pattern;
  void AppendPieces(std::string_view text, std::vector<int32_t>& ids) const;
  void AppendMerged(std::string_view piece, std::vector<int32_t>& ids) const;

  const MetaArray* tokens_;
  std::vector<bool> special_;                                   ///< by id: matched as a whole
  std::unordered_map<std::string_view, int32_t> id_of_;         ///< by vocabulary text
  std::vector<std::pair<std::string_view, int32_t>> specials_;  ///< longest first
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  std::unordered_map<uint64_t, Merge> merges_;  ///< by left id << 32 | right id
  std::array<int32_t, 256> id_of_byte_;
  std::vector<int32_t> end_of_text_;
  std::unique_ptr<Pattern> pattern_;
};

/// The prompt wrapped as one user turn in ChatML with Qwen2.5's default system message.
std::string ChatMl(std::string_view prompt);

/// `text` in Unicode normalisation form C.
std::string Nfc(std::string_view text);

/// Joins token bytes into text: holds a split character back until it is whole, and turns bytes
/// that can never become one into U+FFFD.
class Utf8Stream {
 public:
  std::string Push(std::string_view bytes);
  /// What is still held back, as U+FFFD.
  std::string Finish();

 private:
  std::string held_;
};

}  // namespace lab
