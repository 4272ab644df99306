#include "model/tokenizer.h"

#include <gtest/gtest.h>

#include "lab/error.h"
#include "model/byte_alphabet.h"
#include "model/qwen2.h"

namespace lab {
namespace {

struct TinyTokenizer {
  WeightFile gguf = ReadWeightFile(OpenModelBytes("tiny"));
  Tokenizer tokenizer{gguf};
};
const Tokenizer& Tiny() {
  static const TinyTokenizer tiny;
  return tiny.tokenizer;
}

TEST(Tokenizer, EveryByteComesBack) {
  std::string text;
  for (int code = 1; code < 0x80; ++code) text += static_cast<char>(code);
  text += "\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x8e\x89";
  EXPECT_EQ(Tiny().Decode(Tiny().Encode(text)), text);
}

// Merging by hand, slowly: always the pair of lowest rank, leftmost first.
std::vector<int32_t> MergeSlowly(const WeightFile& gguf, const std::string& piece) {
  const auto& vocabulary = gguf.Strings("tokenizer.ggml.tokens")->strings;
  const auto& merges = gguf.Strings("tokenizer.ggml.merges")->strings;
  std::vector<std::string> parts;
  for (const char c : piece) parts.push_back(BytesToAlphabet(std::string(1, c)));
  for (bool merged = true; merged;) {
    merged = false;
    for (size_t m = 0; m < merges.size() && !merged; ++m) {
      for (size_t i = 0; i + 1 < parts.size() && !merged; ++i) {
        if (merges[m] != parts[i] + " " + parts[i + 1]) continue;
        parts[i] += parts[i + 1];
        parts.erase(parts.begin() + static_cast<ptrdiff_t>(i) + 1);
        merged = true;
      }
    }
  }
  std::vector<int32_t> ids;
  for (const std::string& part : parts)
    ids.push_back(static_cast<int32_t>(std::find(vocabulary.begin(), vocabulary.end(), part) -
                                       vocabulary.begin()));
  return ids;
}

TEST(Tokenizer, MergesAsTheSlowWayDoes) {
  static const TinyTokenizer tiny;
  uint32_t state = 1;
  size_t merged = 0;
  for (int round = 0; round < 300; ++round) {
    std::string piece;
    for (int i = 0; i < 60; ++i)
      piece += static_cast<char>('A' + (state = state * 1664525 + 1013904223) / (1u << 27) % 26);
    const auto ids = tiny.tokenizer.Encode(piece);
    EXPECT_EQ(ids, MergeSlowly(tiny.gguf, piece)) << piece;
    merged += ids.size() < piece.size();
  }
  EXPECT_GT(merged, 100u);  // the vocabulary's merges did take part
}

TEST(Tokenizer, SpecialTokensAreWholeAndStayOutOfNormalisation) {
  const auto ids = Tiny().Encode("a<|im_start|>b<|im_end|>");
  ASSERT_EQ(ids.size(), 4u);
  EXPECT_EQ(Tiny().Decode(ids[1]), "<|im_start|>");
  EXPECT_TRUE(Tiny().IsEndOfText(ids[3]));
  EXPECT_FALSE(Tiny().IsEndOfText(ids[1]));
  EXPECT_EQ(Tiny().Encode("<|im_start|").size(), Tiny().Encode("<|im_start|").size());
  EXPECT_GT(Tiny().Encode("<|im_start|").size(), 1u);
}

TEST(Tokenizer, EmptyTextHasNoTokens) {
  EXPECT_TRUE(Tiny().Encode("").empty());
}

TEST(Tokenizer, BadUtf8IsRefusedWithItsOffset) {
  for (const std::string bad : {"abc\xff", "abc\xc3", "abc\xed\xa0\x80", "abc\xf5\x80\x80\x80"}) {
    try {
      Tiny().Encode(bad);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("offset 3"), std::string::npos) << error.what();
    }
  }
}

TEST(Tokenizer, LongPiecesStayFast) {
  const std::string letters(2'000'000, 'a'), spaces(2'000'000, ' ');
  EXPECT_EQ(Tiny().Decode(Tiny().Encode(letters)), letters);
  EXPECT_EQ(Tiny().Decode(Tiny().Encode(spaces + "x")), spaces + "x");
}

TEST(Nfc, ComposesAndIsIdempotent) {
  EXPECT_EQ(Nfc("cafe\xcc\x81"), "caf\xc3\xa9");
  EXPECT_EQ(Nfc(Nfc("cafe\xcc\x81")), Nfc("cafe\xcc\x81"));
  EXPECT_EQ(Nfc("\xe2\x84\xab"), "\xc3\x85");  // the Angstrom sign
}

TEST(Utf8Stream, HoldsSplitCharactersBack) {
  Utf8Stream stream;
  EXPECT_EQ(stream.Push("a\xe6"), "a");
  EXPECT_EQ(stream.Push("\x97"), "");
  EXPECT_EQ(stream.Push("\xa5z"), "\xe6\x97\xa5z");
  EXPECT_EQ(stream.Push("\xff!"), "\xef\xbf\xbd!");
  EXPECT_EQ(stream.Push("\xf0\x9f"), "");
  EXPECT_EQ(stream.Finish(), "\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(ByteAlphabet, IsABijection) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string one(1, static_cast<char>(byte));
    EXPECT_EQ(AlphabetToBytes(BytesToAlphabet(one)), one);
  }
  EXPECT_EQ(BytesToAlphabet(" "), "\xc4\xa0");  // the famous G with a dot
  EXPECT_EQ(BytesToAlphabet("!"), "!");
}

}  // namespace
}  // namespace lab
