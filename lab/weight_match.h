#pragma once
// Two weight files, tensor by tensor: the comparison behind `lab diff`.
#include <optional>
#include <string>
#include <vector>

#include "lab/weight_compare.h"

namespace lab {

enum class Finding {
  none,
  only_in_a,
  only_in_b,
  shape,        ///< other sizes
  dims,         ///< the two dimensions exchanged, the data in the same order
  transposed,   ///< the data transposed, whatever the shape says
  another,      ///< B holds the data that A has under `other`
  undecodable,  ///< a type that lab cannot decode, and other bytes
  few_bytes     ///< equal types, at most 16 other bytes: damage, not another quantisation
};

/// One tensor of both files, or of one.
struct TensorMatch {
  std::string name;                       ///< GGUF's
  const WeightTensor* a = nullptr;        ///< null: only in B
  const WeightTensor* b = nullptr;        ///< null: only in A
  bool identical = false;                 ///< same type, shape and bytes
  std::optional<ValueDifference> values;  ///< where both could be decoded
  std::optional<ByteDifference> bytes;    ///< of equal types and sizes
  Finding finding = Finding::none;
  std::string other;                         ///< of Finding::another
  bool exchanged = false;                    ///< and A's data of this name are in B under `other`
  std::optional<ValueDifference> explained;  ///< what transposed or another leaves

  double Cosine() const;
  /// Missing, reshaped, transposed, another's or damaged: no rounding does that.
  bool IsWrong() const;
};

/// All tensors of both files, worst first: those that are wrong, then by cosine. An output matrix
/// that one file has and the other ties to its embedding is compared with the embedding.
std::vector<TensorMatch> MatchWeights(const WeightFile& a, const WeightFile& b, int threads);

}  // namespace lab
