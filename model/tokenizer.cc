#include "model/tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <queue>
#include <unordered_set>

#include "lab/error.h"
#include "lab/names.h"
#include "model/byte_alphabet.h"

namespace lab {
namespace {

// https://huggingface.co/Qwen/Qwen2.5-Coder-1.5B-Instruct/blob/main/tokenizer.json, pre_tokenizer
constexpr char kQwen2Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr int64_t kControl = 3,
                  kUserDefined = 4;  // token types of GGUF that text matches as a whole

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}

std::vector<bool> SpecialByType(const MetaArray& types) {
  std::vector<bool> special(types.size);
  for (size_t i = 0; i < types.size; ++i)
    special[i] = types.Integer(i) == kControl || types.Integer(i) == kUserDefined;
  return special;
}

// A byte pair vocabulary has bytes and what merges make of them; the rest was added for whole
// matches, but for the "[PAD151665]" that fill it up to the rows of the embedding.
std::vector<bool> SpecialByOrigin(const MetaArray& tokens, const MetaArray& merges) {
  std::unordered_set<std::string> ordinary;
  for (int byte = 0; byte < 256; ++byte)
    ordinary.insert(BytesToAlphabet(std::string(1, static_cast<char>(byte))));
  for (const std::string_view merge : merges.strings) {
    const size_t space = std::min(merge.find(' ', 1), merge.size());
    ordinary.insert(std::string(merge.substr(0, space)) +
                    std::string(merge.substr(std::min(space + 1, merge.size()))));
  }
  std::vector<bool> special(tokens.size);
  for (size_t i = 0; i < tokens.size; ++i)
    special[i] = !ordinary.contains(std::string(tokens.strings[i])) &&
                 tokens.strings[i] != fmt::format("[PAD{}]", i);
  return special;
}

}  // namespace

struct Tokenizer::Pattern {
  pcre2_code* code = nullptr;

  Pattern() {
    int error;
    PCRE2_SIZE at;
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(kQwen2Pattern), PCRE2_ZERO_TERMINATED,
                         PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error, &at, nullptr);
    if (!code)
      throw Error(kInternal,
                  fmt::format("the qwen2 pattern does not compile (PCRE2 error {})", error));
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without it matching is slower, nothing else
  }
  ~Pattern() { pcre2_code_free(code); }
};

Tokenizer::Tokenizer(const WeightFile& weights) : pattern_(std::make_unique<Pattern>()) {
  const std::string& file = weights.file().name();
  tokens_ = weights.Strings("tokenizer.ggml.tokens");
  const MetaArray* types = weights.Integers("tokenizer.ggml.token_type");
  const MetaArray* merges = weights.Strings("tokenizer.ggml.merges");
  if (!tokens_ || !merges)
    Fail("{}: holds no tokenizer ('{}' and '{}'); give --tokens instead of text", file,
         weights.KeySpelling("tokenizer.ggml.tokens"),
         weights.KeySpelling("tokenizer.ggml.merges"));
  const auto kind = weights.String("tokenizer.ggml.model"),
             pre = weights.String("tokenizer.ggml.pre");
  if (kind.value_or("gpt2") != "gpt2" || pre.value_or("qwen2") != "qwen2")
    Fail("{}: the tokenizer is '{}' with pattern '{}'; lab knows 'gpt2' with 'qwen2'", file,
         Printable(kind.value_or("gpt2")), Printable(pre.value_or("qwen2")));
  if (types && types->size != tokens_->size)
    Fail("{}: {} tokens but {} token types", file, tokens_->size, types->size);
  special_ = types ? SpecialByType(*types) : SpecialByOrigin(*tokens_, *merges);

  id_of_.reserve(tokens_->size);
  for (size_t i = 0; i < tokens_->size; ++i) {
    const auto id = static_cast<int32_t>(i);
    const std::string_view text = tokens_->strings[i];
    special_[i] = special_[i] && !text.empty();
    if (special_[i]) specials_.emplace_back(text, id);
    if (!id_of_.emplace(text, id).second)
      Fail("{}: tokens {} and {} are both '{}'", file, id_of_.at(text), id, Printable(text));
  }
  std::sort(specials_.begin(), specials_.end(),
            [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });

  for (int byte = 0; byte < 256; ++byte) {
    const auto it = id_of_.find(BytesToAlphabet(std::string(1, static_cast<char>(byte))));
    if (it == id_of_.end()) Fail("{}: the vocabulary has no token for byte {}", file, byte);
    id_of_byte_[static_cast<size_t>(byte)] = it->second;
  }
  merges_.reserve(merges->size);
  for (size_t i = 0; i < merges->size; ++i) {
    const std::string_view merge = merges->strings[i];
    const size_t space = merge.find(' ', 1);
    const auto find = [&](std::string_view text) {
      const auto it = id_of_.find(text);
      if (space == std::string_view::npos || it == id_of_.end())
        Fail("{}: merge {} ('{}') does not join two tokens of the vocabulary into a third", file, i,
             Printable(merge));
      return it->second;
    };
    const std::string_view left = merge.substr(0, space),
                           right = merge.substr(std::min(merge.size(), space + 1));
    const std::string joined = std::string(left) + std::string(right);
    merges_.emplace(PairKey(find(left), find(right)),
                    Merge{static_cast<uint32_t>(i), find(joined)});
  }
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"})
    if (const auto id = weights.Unsigned(key)) end_of_text_.push_back(static_cast<int32_t>(*id));
  for (const char* text : {"<|endoftext|>", "<|im_end|>"})
    if (const auto it = id_of_.find(text); it != id_of_.end()) end_of_text_.push_back(it->second);
}

Tokenizer::~Tokenizer() = default;

bool Tokenizer::IsEndOfText(int32_t id) const {
  return std::find(end_of_text_.begin(), end_of_text_.end(), id) != end_of_text_.end();
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const {
  size_t bad;
  if (!IsUtf8(text, &bad)) Fail("the text is not UTF-8: bad byte at offset {}", bad);
  std::vector<int32_t> ids;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const auto matches = [&](const auto& s) { return text.substr(at).starts_with(s.first); };
    const auto it = std::find_if(specials_.begin(), specials_.end(), matches);
    if (it == specials_.end()) {
      ++at;
      continue;
    }
    AppendPieces(text.substr(done, at - done), ids);
    ids.push_back(it->second);
    done = at += it->first.size();
  }
  AppendPieces(text.substr(done), ids);
  return ids;
}

// Splits text without special tokens by the pattern. The pattern matches every character, so the
// pieces cover the whole.
void Tokenizer::AppendPieces(std::string_view text, std::vector<int32_t>& ids) const {
  if (text.empty()) return;
  const std::string normal = Nfc(text);
  const auto free_match = [](pcre2_match_data* m) { pcre2_match_data_free(m); };
  const std::unique_ptr<pcre2_match_data, decltype(free_match)> match(
      pcre2_match_data_create_from_pattern(pattern_->code, nullptr), free_match);
  for (size_t at = 0; at < normal.size();) {
    const int found =
        pcre2_match(pattern_->code, reinterpret_cast<PCRE2_SPTR>(normal.data()), normal.size(), at,
                    PCRE2_ANCHORED | PCRE2_NO_UTF_CHECK, match.get(), nullptr);
    if (found < 0)
      throw Error(kInternal,
                  fmt::format("the qwen2 pattern stops at byte {} of the text (PCRE2 error {})", at,
                              found));
    const size_t end = pcre2_get_ovector_pointer(match.get())[1];
    AppendMerged(std::string_view(normal).substr(at, end - at), ids);
    at = end;
  }
}

// Repeatedly joins the neighbouring pair of lowest rank, leftmost first, in O(n log n): symbols
// form a linked list, candidate pairs a heap. A candidate is stale when its symbols have changed
// since.
void Tokenizer::AppendMerged(std::string_view piece, std::vector<int32_t>& ids) const {
  struct Symbol {
    int32_t id;
    int32_t previous, next;
  };
  struct Candidate {
    uint32_t rank;
    int32_t left, right, left_id, right_id, joined;
    bool operator<(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  const auto n = static_cast<int32_t>(piece.size());
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  for (int32_t i = 0; i < n; ++i)
    symbols.push_back({id_of_byte_[static_cast<uint8_t>(piece[static_cast<size_t>(i)])], i - 1,
                       i + 1 < n ? i + 1 : -1});

  std::priority_queue<Candidate> candidates;
  const auto consider = [&](int32_t left) {
    const int32_t right = left < 0 ? -1 : symbols[static_cast<size_t>(left)].next;
    if (right < 0) return;
    const int32_t left_id = symbols[static_cast<size_t>(left)].id,
                  right_id = symbols[static_cast<size_t>(right)].id;
    const auto it = merges_.find(PairKey(left_id, right_id));
    if (it != merges_.end())
      candidates.push({it->second.rank, left, right, left_id, right_id, it->second.id});
  };
  for (int32_t i = 0; i < n; ++i) consider(i);
  while (!candidates.empty()) {
    const Candidate c = candidates.top();
    candidates.pop();
    Symbol& left = symbols[static_cast<size_t>(c.left)];
    Symbol& right = symbols[static_cast<size_t>(c.right)];
    if (left.id != c.left_id || right.id != c.right_id || left.next != c.right) continue;
    left.id = c.joined;
    left.next = right.next;
    right.id = -1;
    if (right.next >= 0) symbols[static_cast<size_t>(right.next)].previous = c.left;
    consider(left.previous);
    consider(c.left);
  }
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next)
    ids.push_back(symbols[static_cast<size_t>(i)].id);
}

std::string Tokenizer::Decode(int32_t id) const {
  const std::string_view text = tokens_->strings[static_cast<size_t>(id)];
  return special_[static_cast<size_t>(id)] ? std::string(text) : AlphabetToBytes(text);
}

std::string Tokenizer::Decode(std::span<const int32_t> ids) const {
  std::string bytes;
  for (const int32_t id : ids) bytes += Decode(id);
  return bytes;
}

std::string ChatMl(std::string_view prompt) {
  return fmt::format(
      "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
      "assistant.<|im_end|>\n"
      "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
      prompt);
}

std::string Nfc(std::string_view text) {
  utf8proc_uint8_t* normal = nullptr;
  const auto n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                              static_cast<utf8proc_ssize_t>(text.size()), &normal,
                              static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (n < 0) throw Error(kInternal, fmt::format("NFC: {}", utf8proc_errmsg(n)));
  std::string out(reinterpret_cast<const char*>(normal), static_cast<size_t>(n));
  std::free(normal);
  return out;
}

std::string Utf8Stream::Push(std::string_view bytes) {
  held_ += bytes;
  std::string out;
  size_t at = 0;
  while (at < held_.size()) {
    const std::string_view rest = std::string_view(held_).substr(at);
    utf8proc_int32_t code;
    const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(rest.data()),
                                    static_cast<utf8proc_ssize_t>(rest.size()), &code);
    if (n > 0) {
      out += rest.substr(0, static_cast<size_t>(n));
      at += static_cast<size_t>(n);
      continue;
    }
    // A lead byte with only continuation bytes behind it may still become a character.
    const auto lead = static_cast<uint8_t>(rest[0]);
    const size_t wanted = lead >= 0xf0 && lead < 0xf5   ? 4
                          : lead >= 0xe0 && lead < 0xf0 ? 3
                          : lead >= 0xc2 && lead < 0xe0 ? 2
                                                        : 1;
    const bool so_far =
        std::all_of(rest.begin() + 1, rest.end(), [](char c) { return (c & 0xc0) == 0x80; });
    if (rest.size() < wanted && so_far) break;
    out += "\xef\xbf\xbd";
    ++at;
  }
  held_.erase(0, at);
  return out;
}

std::string Utf8Stream::Finish() {
  std::string out;
  for (size_t i = 0; i < held_.size(); ++i) out += "\xef\xbf\xbd";
  held_.clear();
  return out;
}

}  // namespace lab
