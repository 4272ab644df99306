#include "model/repack.h"

#include <algorithm>

#include "kernels/rows8.h"
#include "lab/parallel.h"

namespace lab {
namespace {

// What a thread repacks before it lets go of the pages.
constexpr size_t kPieceBytes = 4 << 20;

struct Piece {
  WeightView w;
  uint8_t* to;
};

size_t Padded(const WeightView& w) {
  return (w.bytes() + 63) / 64 * 64;
}

std::vector<WeightView*> MatricesOf(Qwen2& model) {
  std::vector<WeightView*> matrices;
  for (Qwen2Layer& l : model.layers)
    for (WeightView* w :
         {&l.attn_q, &l.attn_k, &l.attn_v, &l.attn_output, &l.ffn_gate, &l.ffn_up, &l.ffn_down})
      matrices.push_back(w);
  matrices.push_back(&model.output);
  std::erase_if(matrices, [](const WeightView* w) { return !HasRows8(w->type); });
  return matrices;
}

}  // namespace

void Repack(Qwen2& model, int threads) {
  const std::vector<WeightView*> matrices = MatricesOf(model);
  size_t total = 0;
  for (const WeightView* w : matrices) total += Padded(*w);
  if (total == 0) return;
  model.rows8 = AlignedBytes(total);
  std::vector<Piece> pieces;
  uint8_t* to = model.rows8.data();
  for (WeightView* w : matrices) {
    const size_t step =
        std::max<size_t>(kPieceBytes / w->row_bytes() / kRowsSliceGrain, 1) * kRowsSliceGrain;
    for (size_t r = 0; r < w->rows; r += step)
      pieces.push_back({w->Rows(r, std::min(r + step, w->rows)), to + r * w->row_bytes()});
    w->rows8 = to;
    to += Padded(*w);
  }
  // Embeddings are read from the file: after 512 page faults a prefill was 2 % slower.
  const auto is_embedding = [&](const WeightView& w) {
    return model.config.tied_output && w.data >= model.token_embd.data &&
           w.data < model.token_embd.data + model.token_embd.bytes();
  };
  ParallelEach(pieces.size(), static_cast<size_t>(threads), [&](size_t i) {
    const Piece& piece = pieces[i];
    RepackRows8(piece.w, piece.to);
    if (!is_embedding(piece.w)) model.source->file().LetGo({piece.w.data, piece.w.bytes()});
  });
}

}  // namespace lab
