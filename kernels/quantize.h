#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/block_types.h"

namespace lab {

/// Activations rounded to integers per block: x[t, i] ~ scale[t, i / block] * q[t, i] with
/// q = hi (contract q8) or q = 256 hi + lo (q16), where both planes are int8. Not owned.
struct QuantizedView {
  const int8_t* hi = nullptr;    ///< [tokens, n]
  const int8_t* lo = nullptr;    ///< [tokens, n]; null under q8
  const float* scale = nullptr;  ///< [tokens, n / block]
  const int32_t* sums =
      nullptr;  ///< [tokens, n / 16]: sum of q over 16 neighbours, for weights with a minimum
  size_t n = 0, block = 0;

  int32_t Integer(size_t i) const { return lo ? 256 * hi[i] + lo[i] : hi[i]; }
};

/// How many activations share a scale when they meet weights of that type: 256 for the K-quants, 32
/// for the 32-value types, 0 for float weights, whose activations stay float under every contract.
constexpr size_t ActivationBlock(BlockType type) {
  const size_t elements = InfoOf(type).elements;
  return elements == 1 ? 0 : elements;
}

/// Bytes of tokens * n integers with their scales and sums; `lo`: of the second plane, or null.
inline size_t IntegerBytes(const int8_t* lo, size_t tokens, size_t n, size_t block) {
  return tokens * (n * (lo ? 2 : 1) + n / block * sizeof(float) + n / 16 * sizeof(int32_t));
}
/// Bytes of the activations [tokens, n] that a dot product reads: the integers, else values of T.
template <class T>
size_t ActivationBytes(const QuantizedView& xq, size_t tokens, size_t n) {
  return xq.hi ? IntegerBytes(xq.lo, tokens, n, xq.block) : tokens * n * sizeof(T);
}

/// Op quantize, exact and all in float32 (a double is rounded to float first). Per block, with L =
/// 127 (q8) or 32512 (q16): amax = max |x|, r = L / amax, q = rint(x r) with ties to even, scale =
/// amax / L. amax 0, or so small that r overflows: zeros. A NaN or Inf in the block: zeros with
/// scale NaN.
template <class T>
struct QuantizeArgs {
  const T* x;  ///< [tokens, n]
  int8_t* hi;  ///< the fields of QuantizedView, to be written
  int8_t* lo;  ///< null under q8
  float* scale;
  int32_t* sums;
  size_t tokens, n, block;  ///< n is a multiple of block, block one of 16

  size_t Items() const { return tokens; }
  size_t Work() const { return 4 * tokens * n; }
  size_t Bytes() const { return tokens * n * sizeof(T) + IntegerBytes(lo, tokens, n, block); }
  QuantizeArgs Slice(size_t begin, size_t end) const {
    return {x + begin * n,
            hi + begin * n,
            lo ? lo + begin * n : nullptr,
            scale + begin * (n / block),
            sums + begin * (n / 16),
            end - begin,
            n,
            block};
  }
};

/// Owns what a QuantizeArgs writes; keeps its memory from use to use.
class QuantizedBuffer {
 public:
  /// Arguments that write into this buffer; view() is what they will have written.
  template <class T>
  QuantizeArgs<T> Prepare(const T* x, size_t tokens, size_t n, size_t block, bool two_planes) {
    hi_.resize(tokens * n);
    if (two_planes) lo_.resize(tokens * n);
    scale_.resize(tokens * n / block);
    sums_.resize(tokens * n / 16);
    int8_t* lo = two_planes ? lo_.data() : nullptr;
    view_ = {hi_.data(), lo, scale_.data(), sums_.data(), n, block};
    return {x, hi_.data(), lo, scale_.data(), sums_.data(), tokens, n, block};
  }
  void Clear() { view_ = {}; }
  const QuantizedView& view() const { return view_; }

 private:
  std::vector<int8_t> hi_, lo_;
  std::vector<float> scale_;
  std::vector<int32_t> sums_;
  QuantizedView view_;
};

}  // namespace lab
