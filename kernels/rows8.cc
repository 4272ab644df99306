#include "kernels/rows8.h"

#include <cstring>
#include <utility>

#include "kernels/six_bits.h"

namespace lab {
namespace {

uint64_t LoadWord(const void* from) {
  uint64_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}
void StoreWord(uint64_t word, void* to) {
  std::memcpy(to, &word, sizeof word);
}

/// Every byte times `bits`.
constexpr uint64_t Bytes(uint64_t bits) {
  return bits * 0x0101010101010101;
}

/// a's high nibbles for b's low ones.
std::pair<uint64_t, uint64_t> ExchangeNibbles(uint64_t a, uint64_t b) {
  return {(a & Bytes(0x0f)) | (b & Bytes(0x0f)) << 4, (a >> 4 & Bytes(0x0f)) | (b & Bytes(0xf0))};
}

/// Bits 2 k of word m for bits 2 m of word k.
void TransposeTwoBits(uint64_t (&words)[4]) {
  uint64_t out[4] = {};
  for (int k = 0; k < 4; ++k)
    for (int m = 0; m < 4; ++m) out[k] |= (words[m] >> 2 * k & Bytes(0x03)) << 2 * m;
  std::memcpy(words, out, sizeof out);
}

uint64_t SpreadBytes(uint32_t bytes) {
  uint64_t x = bytes;
  x = (x | x << 16) & 0x0000ffff0000ffff;
  return (x | x << 8) & 0x00ff00ff00ff00ff;
}
/// Bytes in natural order to their places in a word (PlaceInWord).
uint64_t ToPlaces(uint64_t bytes) {
  return SpreadBytes(static_cast<uint32_t>(bytes)) | SpreadBytes(static_cast<uint32_t>(bytes >> 32))
                                                         << 8;
}
void PackRow(const BlockQ4_K& b, size_t r, Rows8Q4_K& out) {
  out.factors[r][0] = b.d;
  out.factors[r][1] = b.dmin;
  const SixBits six = UnpackSixBits(b.scales);
  const uint64_t mins = ToPlaces(six.mins), high = mins >> 2 & Bytes(0x0f);
  StoreWord(ToPlaces(six.scales) | (mins & Bytes(0x03)) << 6, out.scales + 8 * r);
  const auto nibbles = static_cast<uint32_t>(high | high >> 28);
  std::memcpy(out.mins_high[r], &nibbles, sizeof nibbles);
  for (size_t i = 0; i < 8; ++i) {  // 16 bytes: half of the columns of two sub-blocks
    const uint8_t* from = b.qs + 16 * i;
    const auto [low, high_words] = ExchangeNibbles(LoadWord(from), LoadWord(from + 8));
    const size_t chunk = i / 2 * 4 + i % 2;
    StoreWord(low, out.qs[chunk] + 8 * r);
    StoreWord(high_words, out.qs[chunk + 2] + 8 * r);
  }
}

void PackRow(const BlockQ6_K& b, size_t r, Rows8Q6_K& out) {
  out.d[r] = b.d;
  for (size_t i = 0; i < 2; ++i)
    StoreWord(ToPlaces(LoadWord(b.scales + 8 * i)), out.scales[i] + 8 * r);
  for (size_t i = 0; i < 8; ++i) {
    const uint8_t* from = b.ql + 16 * i;
    const auto [low, high] = ExchangeNibbles(LoadWord(from), LoadWord(from + 8));
    auto* sub_block = &out.sub_blocks[i / 4 * 4 + i % 4 / 2];  // the high nibbles: two further
    StoreWord(low, sub_block[0].ql[i % 2] + 8 * r);
    StoreWord(high, sub_block[2].ql[i % 2] + 8 * r);
  }
  for (size_t half = 0; half < 2; ++half) {
    uint64_t words[4];
    std::memcpy(words, b.qh + 32 * half, sizeof words);
    TransposeTwoBits(words);
    for (size_t k = 0; k < 4; ++k) StoreWord(words[k], out.sub_blocks[4 * half + k].qh + 8 * r);
  }
}

template <class Block, class Group>
void Repack(WeightView w, uint8_t* out) {
  w.rows8 = out;
  for (size_t g = 0; g < w.rows / 8; ++g) {
    const auto groups = BlocksOfGroup<Group>(w, g);
    for (size_t b = 0; b < w.cols / 256; ++b) {
      Group group;
      for (size_t r = 0; r < 8; ++r)
        PackRow(reinterpret_cast<const Block*>(w.row(8 * g + r))[b], r, group);
      std::memcpy(const_cast<Group*>(&groups[b]), &group, sizeof group);
    }
  }
}

}  // namespace

void RepackRows8(const WeightView& w, uint8_t* out) {
  if (w.type == BlockType::Q4_K)
    Repack<BlockQ4_K, Rows8Q4_K>(w, out);
  else
    Repack<BlockQ6_K, Rows8Q6_K>(w, out);
}

std::vector<uint8_t> RepackedRows8(const WeightView& w) {
  if (!HasRows8(w.type)) return {};
  std::vector<uint8_t> bytes(w.rows / 8 * 8 * w.row_bytes());
  RepackRows8(w, bytes.data());
  return bytes;
}

}  // namespace lab
