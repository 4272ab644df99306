#pragma once
#include "kernels/block_types.h"

namespace lab {

/// Op embed: y[t] = dequantised row ids[t] of the table, bit for bit.
template <class T>
struct EmbedArgs {
  WeightView table;    ///< [vocab, hidden], any block type
  const int32_t* ids;  ///< [tokens], each in [0, vocab)
  T* y;                ///< [tokens, hidden]
  size_t tokens;

  size_t Items() const { return tokens; }
  size_t Work() const { return tokens * table.cols; }
  size_t Bytes() const { return tokens * (table.row_bytes() + table.cols * sizeof(T)); }
  EmbedArgs Slice(size_t begin, size_t end) const {
    return {table, ids + begin, y + begin * table.cols, end - begin};
  }
};

}  // namespace lab
