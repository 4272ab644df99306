// Unpacking of weights repacked by eight rows, one value at a time, from the description of that
// form in kernels/rows8.h: with the row that unpacks plain blocks it is the check of the repacking.
#include "kernels/dequant.h"
#include "kernels/rows8.h"
#include "reference/dequant_ref.h"

namespace lab {
namespace {

/// Column c of the 16 columns of a chunk.
int NibbleAt(const uint8_t (&chunk)[64], size_t r, size_t c) {
  return chunk[8 * r + c % 8] >> (c < 8 ? 0 : 4) & 15;
}

// Row r, column c of a super-block of eight rows.

float ValueAt(const Rows8Q4_K& g, size_t r, size_t c) {
  const size_t place = PlaceInWord(c / 32);
  const int packed = g.scales[8 * r + place];
  const int min_high = g.mins_high[r][place % 4] >> (place < 4 ? 0 : 4) & 15;
  const float scale = HalfToFloat(g.factors[r][0]) * static_cast<float>(packed & 63);
  const float min = HalfToFloat(g.factors[r][1]) * static_cast<float>(min_high << 2 | packed >> 6);
  return scale * static_cast<float>(NibbleAt(g.qs[c / 16], r, c % 16)) - min;
}

float ValueAt(const Rows8Q6_K& g, size_t r, size_t c) {
  const auto& sub_block = g.sub_blocks[c / 32];
  const int low = NibbleAt(sub_block.ql[c / 16 % 2], r, c % 16);
  const int high = sub_block.qh[8 * r + c % 8] >> (c % 32 / 8 * 2) & 3;
  const int8_t scale = g.scales[c / 128][8 * r + PlaceInWord(c / 16 % 8)];
  return HalfToFloat(g.d[r]) * static_cast<float>(scale) *
         static_cast<float>((high << 4 | low) - 32);
}

template <class Group>
void Dequant(const DequantArgs<float>& a) {
  const size_t whole = a.w.rows8 ? a.w.rows / 8 * 8 : 0;
  for (size_t r = 0; r < whole; ++r) {
    const auto blocks = BlocksOfGroup<Group>(a.w, r / 8);
    for (size_t c = 0; c < a.w.cols; ++c)
      a.y[r * a.w.cols + c] = ValueAt(blocks[c / 256], r % 8, c % 256);
  }
  for (size_t r = whole; r < a.w.rows; ++r)
    DequantRow(a.w.type, a.w.row(r), a.w.cols, a.y + r * a.w.cols);
}

}  // namespace

void Q4kDequantRows8Ref(const DequantArgs<float>& a) {
  Dequant<Rows8Q4_K>(a);
}
void Q6kDequantRows8Ref(const DequantArgs<float>& a) {
  Dequant<Rows8Q6_K>(a);
}

}  // namespace lab
