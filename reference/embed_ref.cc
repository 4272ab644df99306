#include <vector>

#include "kernels/embed.h"
#include "reference/dequant_ref.h"

namespace lab {
namespace {

template <class T>
void Embed(const EmbedArgs<T>& a) {
  std::vector<float> row(a.table.cols);
  for (size_t t = 0; t < a.tokens; ++t) {
    DequantRow(a.table.type, a.table.row(a.ids[t]), a.table.cols, row.data());
    for (size_t i = 0; i < a.table.cols; ++i) a.y[t * a.table.cols + i] = row[i];
  }
}

}  // namespace

void EmbedOracle(const EmbedArgs<double>& a) {
  Embed(a);
}
void EmbedRef(const EmbedArgs<float>& a) {
  Embed(a);
}

}  // namespace lab
