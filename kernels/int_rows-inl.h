// Rows of quantised weights times activations in integers: what matvec and gate_up share under
// contracts q8 and q16.
//
// Per block and token, with one plane of activations (q8: q = hi) or two (q16: q = 256 hi + lo):
//   y += scale_x (d sum_s sc_s (w_s . q_s) - dmin sum_s m_s sum(q_s))
// The products are summed in int32 lane by lane, plane by plane; a lane holds 32 or 64 values:
//   Q4_K 15 * 128 * 63 * 64 = 7.7e6, Q5_K 31 * .. = 1.6e7: below 2^24, exact as floats too;
//   Q6_K 32 * 128 * 128 * 64 = 3.4e7: fits int32, may round once as a float.
// The planes meet as floats: 256 hi + lo of Q6_K (8e9) fits no int32.
// A token's order of additions depends on the number of columns alone, whatever the tile it is in.

#if defined(LAB_KERNELS_INT_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAB_KERNELS_INT_ROWS_INL_H_
#undef LAB_KERNELS_INT_ROWS_INL_H_
#else
#define LAB_KERNELS_INT_ROWS_INL_H_
#endif

#include "kernels/block_types.h"
#include "kernels/int8_dot-inl.h"
#include "kernels/quantize.h"
#include "kernels/simd-inl.h"
#include "kernels/six_bits.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

/// Activations as the rows read them.
template <size_t kPlanes_>
struct Activations {
  static constexpr size_t kPlanes = kPlanes_;
  const int8_t* planes[2];
  const float* scale;
  const float* sums;  // [tokens, n / 32], of q; for types with minimums alone
  size_t n;
};

template <class Block>
constexpr bool kIsKQuant = false;
template <>
constexpr bool kIsKQuant<BlockQ4_K> = true;
template <>
constexpr bool kIsKQuant<BlockQ5_K> = true;
template <>
constexpr bool kIsKQuant<BlockQ6_K> = true;
template <class Block>
constexpr size_t kValues = kIsKQuant<Block> ? 256 : 32;

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

// Each is empty for the targets of the other.
#include "kernels/int_blocks-inl.h"
#include "kernels/int_blocks_scalar-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

/// sums[r][t] = row r times token t0 + t.
template <class Block, size_t kRows, size_t kTokens, class Acts>
HWY_INLINE void RowTile(const uint8_t* const (&rows)[kRows], const Acts& x, size_t t0, size_t cols,
                        float (&sums)[kRows][kTokens]) {
  BlockSum partial[kRows][kTokens];
  Unroll<kRows>([&](auto r) LAB_LAMBDA {
    Unroll<kTokens>([&](auto t) LAB_LAMBDA { partial[r][t] = ZeroSum(); });
  });
  for (size_t b = 0; b < cols / kValues<Block>; ++b) {
    const Block* blocks[kRows];
    for (size_t r = 0; r < kRows; ++r) blocks[r] = reinterpret_cast<const Block*>(rows[r]) + b;
    AddBlock<Block>(blocks, x, t0, b, partial);
  }
  Unroll<kRows>([&](auto r) LAB_LAMBDA {
    Unroll<kTokens>([&](auto t) LAB_LAMBDA { sums[r][t] = SumOf(partial[r][t]); });
  });
}

// Tokens that share one unpacking of a block. Wider tiles run out of registers.
constexpr size_t kTokenTile = 4;

/// store(r, t, sum) of kRows rows for every token.
template <class Block, size_t kRows, class Acts, class Store>
HWY_INLINE void RowsAllTokens(const uint8_t* const (&rows)[kRows], const Acts& x, size_t cols,
                              size_t tokens, Store&& store) {
  const auto tile = [&](auto tile_tokens, size_t t0) LAB_LAMBDA {
    float sums[kRows][tile_tokens];
    RowTile<Block>(rows, x, t0, cols, sums);
    for (size_t r = 0; r < kRows; ++r)
      for (size_t t = 0; t < tile_tokens; ++t) store(r, t0 + t, sums[r][t]);
  };
  size_t t = 0;
  for (; t + kTokenTile <= tokens; t += kTokenTile) tile(Index<kTokenTile>(), t);
  for (; t < tokens; ++t) tile(Index<1>(), t);
}

template <class T>
struct TypeTag {
  using Type = T;
};

/// f(TypeTag<Block>()) for the block of a quantised type.
template <class F>
HWY_INLINE void WithQuantBlock(BlockType type, F&& f) {
  switch (type) {
    case BlockType::Q4_0:
      return f(TypeTag<BlockQ4_0>());
    case BlockType::Q5_0:
      return f(TypeTag<BlockQ5_0>());
    case BlockType::Q8_0:
      return f(TypeTag<BlockQ8_0>());
    case BlockType::Q4_K:
      return f(TypeTag<BlockQ4_K>());
    case BlockType::Q5_K:
      return f(TypeTag<BlockQ5_K>());
    case BlockType::Q6_K:
      return f(TypeTag<BlockQ6_K>());
    default:
      return;
  }
}

/// xq as rows of `type` read it; sums has tokens * n / 32 values.
template <size_t kPlanes>
HWY_INLINE Activations<kPlanes> Prepare(BlockType type, const QuantizedView& xq, size_t tokens,
                                        float* sums) {
  if (type == BlockType::Q4_K || type == BlockType::Q5_K)
    for (size_t s = 0; s < tokens * xq.n / 32; ++s)
      sums[s] = static_cast<float>(xq.sums[2 * s] + xq.sums[2 * s + 1]);
  return {{xq.hi, xq.lo}, xq.scale, sums, xq.n};
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
