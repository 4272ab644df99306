// One pass over the positions with a running softmax (Milakov, Gimelshein 2018; Dao et al. 2022),
// for the query heads of one KV head together and, in a prefill, for several tokens: K and V are
// read once for all of them. What is added to what depends on the token's position and the head
// alone, so prefill and decode agree bit for bit.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <type_traits>

#include "kernels/gqa_attention.h"
#include "kernels/scratch-inl.h"
#include "kernels/targets-inl.h"

#ifndef LAB_KERNELS_GQA_ATTENTION_SIZES_  // once for all targets
#define LAB_KERNELS_GQA_ATTENTION_SIZES_
namespace lab {
namespace {
constexpr size_t kTilePositions = 64;  // 16 KB of K or V as half floats at head_dim 128
constexpr size_t kMaxHeads = 6;        // query heads in one register tile
constexpr size_t kMaxTokens = 8;       // tokens that share a tile of K and V
constexpr size_t kMaxLanes = 16;

// Work space of one block of tokens, floats. `dim` is head_dim in whole vectors.
struct AttentionScratch {
  size_t dim, queries;
  float *q, *y;          // [queries, dim]; query = token * heads + head
  float* p;              // [queries, kTilePositions]: scores, then their weights
  float *k, *v;          // [kTilePositions, dim]: tiles converted or padded
  float *largest, *sum;  // [queries]: so far
  float* scale;          // [queries]: what the sums so far lose as `largest` grows

  AttentionScratch(size_t dim, size_t queries, float* at)
      : dim(dim),
        queries(queries),
        q(at),
        y(q + queries * dim),
        p(y + queries * dim),
        k(p + queries * kTilePositions),
        v(k + kTilePositions * dim),
        largest(v + kTilePositions * dim),
        sum(largest + queries),
        scale(sum + queries) {}
  static size_t Floats(size_t dim, size_t queries) {
    return 2 * queries * dim + queries * kTilePositions + 2 * kTilePositions * dim + 3 * queries;
  }
};
}  // namespace
}  // namespace lab
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gqa_attention_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
// Per target, hence behind it.
#include "hwy/contrib/math/math-inl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

// Sums that the registers hold beside what is being multiplied: 32 registers with AVX-512 and on
// NEON, else 16.
constexpr size_t kTileSums = kLanes == 16 || HWY_ARCH_ARM_A64 ? 24 : kLanes > 1 ? 12 : 1;

HWY_INLINE FloatVec Values(const float* from) {
  return hn::LoadU(Floats(), from);
}
HWY_INLINE FloatVec Values(const uint16_t* from) {
  return LoadHalf(Floats(), from);
}

// Highway's Exp gives 0 for NaN.
template <class D>
HWY_INLINE hn::Vec<D> ExpOrNaN(D d, hn::Vec<D> x) {
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, x));
}

// f(Index<n>()) for n = heads <= kMaxHeads.
template <size_t kHeads = kMaxHeads, class F>
HWY_INLINE void WithHeads(size_t heads, F&& f) {
  if constexpr (kHeads > 1) {
    if (heads < kHeads) return WithHeads<kHeads - 1>(heads, f);
  }
  f(Index<kHeads>());
}

// out[r] = the sum of the lanes of sums[r], in the order of FoldLanes.
template <size_t kRows>
HWY_INLINE void StoreTotals(const FloatVec (&sums)[kRows], float* out) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (kRows > 1) {
    const hn::FixedTag<float, 4> d4;
    using Four = hn::Vec<decltype(d4)>;
    Four fours[kRows];
    Unroll<kRows>([&](auto r) LAB_LAMBDA { fours[r] = FoldToFour(Floats(), sums[r]); });
    const auto pair = [&](Four a, Four b) LAB_LAMBDA {
      return hn::Add(hn::ConcatLowerLower(d4, b, a), hn::ConcatUpperUpper(d4, b, a));
    };
    const Four low = pair(fours[0], fours[1]), high = pair(fours[kRows - 2], fours[kRows - 1]);
    const Four totals = hn::Add(hn::ConcatEven(d4, high, low), hn::ConcatOdd(d4, high, low));
    if constexpr (kRows == 4)
      hn::StoreU(totals, d4, out);
    else
      hn::StoreU(hn::LowerHalf(totals), hn::Half<decltype(d4)>(), out);
    return;
  }
#endif
  Unroll<kRows>([&](auto r) LAB_LAMBDA { out[r] = FoldLanes(Floats(), sums[r]); });
}

// p[h, r] = q[h] . k[r] for kRows positions; one chain of additions per lane.
template <size_t kRows, size_t kHeads, class Kv>
HWY_INLINE void Dots(const float* q, size_t dim, const Kv* k, size_t stride, float* p) {
  FloatVec sums[kHeads][kRows];
  Unroll<kHeads>([&](auto h) LAB_LAMBDA {
    Unroll<kRows>([&](auto r) LAB_LAMBDA { sums[h][r] = hn::Zero(Floats()); });
  });
  for (size_t i = 0; i < dim; i += kLanes) {
    FloatVec row[kRows];
    Unroll<kRows>([&](auto r) LAB_LAMBDA { row[r] = Values(k + r * stride + i); });
    Unroll<kHeads>([&](auto h) LAB_LAMBDA {
      const FloatVec query = hn::LoadU(Floats(), q + h * dim + i);
      Unroll<kRows>([&](auto r) LAB_LAMBDA { sums[h][r] = hn::MulAdd(row[r], query, sums[h][r]); });
    });
  }
  Unroll<kHeads>([&](auto h) LAB_LAMBDA { StoreTotals(sums[h], p + h * kTilePositions); });
}

// `rows` rows of `n` values, which are too far apart for the hardware to foresee.
template <class Kv>
HWY_INLINE void PrefetchRows(const Kv* from, size_t stride, size_t rows, size_t n) {
  for (size_t r = 0; r < rows; ++r)
    for (size_t i = 0; i < n; i += 64 / sizeof(Kv)) PrefetchL2(from + r * stride + i);
}

// p[h, r] = q[h] . k[r] for the positions of a tile. `v_ahead`: its rows of V if they are worth
// prefetching, else null.
template <size_t kHeads, class Kv>
void Scores(const float* q, size_t dim, const Kv* k, const Kv* v_ahead, size_t stride,
            size_t positions, float* p) {
  constexpr size_t kRows = kTileSums >= 4 * kHeads ? 4 : kTileSums >= 2 * kHeads ? 2 : 1;
  size_t r = 0;
  for (; r + kRows <= positions; r += kRows) {
    if (v_ahead) PrefetchRows(v_ahead + r * stride, stride, kRows, dim);
    Dots<kRows, kHeads>(q, dim, k + r * stride, stride, p + r);
  }
  for (; r < positions; ++r) Dots<1, kHeads>(q, dim, k + r * stride, stride, p + r);
}

// Turns n sums of products into exp(score - largest score so far). A NaN among the scores may
// escape Max, but not exp(NaN - largest).
void Softmax(float* p, size_t n, float root, float& largest, float& sum, float& scale) {
  const Floats d;
  const size_t whole = (n + kLanes - 1) / kLanes * kLanes;
  std::fill(p + n, p + whole, -HUGE_VALF);  // exp gives 0
  FloatVec largest_vec = hn::Set(d, largest);
  for (size_t j = 0; j < whole; j += kLanes) {
    const FloatVec score = hn::Div(hn::LoadU(d, p + j), hn::Set(d, root));
    hn::StoreU(score, d, p + j);
    largest_vec = hn::Max(largest_vec, score);
  }
  const float before = largest;
  largest = hn::GetLane(hn::MaxOfLanes(d, largest_vec));
  FloatVec sum_vec = hn::Zero(d);
  for (size_t j = 0; j < whole; j += kLanes) {
    const FloatVec e = ExpOrNaN(d, hn::Sub(hn::LoadU(d, p + j), hn::Set(d, largest)));
    hn::StoreU(e, d, p + j);
    sum_vec = hn::Add(sum_vec, e);
  }
  const hn::CappedTag<float, 1> d1;
  scale = hn::GetLane(ExpOrNaN(d1, hn::Set(d1, before - largest)));
  sum = sum * scale + FoldLanes(d, sum_vec);
}

// y[h] = scale[h] y[h] + sum_j p[h, j] v[j] for kVecs vectors of columns: every column is one chain
// of additions in the order of positions. `ahead` rows of K follow at `next` and are prefetched.
template <size_t kVecs, size_t kHeads, class Kv>
HWY_INLINE void AddWeighted(const float* p, size_t n, const Kv* v, const Kv* next, size_t ahead,
                            size_t stride, const float* scale, float* y, size_t dim) {
  const Floats d;
  FloatVec sums[kHeads][kVecs];
  Unroll<kHeads>([&](auto h) LAB_LAMBDA {
    Unroll<kVecs>([&](auto i) LAB_LAMBDA {
      sums[h][i] = hn::Mul(hn::Set(d, scale[h]), hn::LoadU(d, y + h * dim + i * kLanes));
    });
  });
  for (size_t j = 0; j < n; ++j) {
    FloatVec row[kVecs];
    Unroll<kVecs>([&](auto i) LAB_LAMBDA { row[i] = Values(v + j * stride + i * kLanes); });
    if (j < ahead) PrefetchRows(next + j * stride, stride, 1, kVecs * kLanes);
    Unroll<kHeads>([&](auto h) LAB_LAMBDA {
      const FloatVec weight = hn::Set(d, p[h * kTilePositions + j]);
      Unroll<kVecs>([&](auto i)
                        LAB_LAMBDA { sums[h][i] = hn::MulAdd(weight, row[i], sums[h][i]); });
    });
  }
  Unroll<kHeads>([&](auto h) LAB_LAMBDA {
    Unroll<kVecs>([&](auto i) LAB_LAMBDA { hn::StoreU(sums[h][i], d, y + h * dim + i * kLanes); });
  });
}

template <size_t kHeads, class Kv>
void AddWeightedRows(const float* p, size_t n, const Kv* v, const Kv* next, size_t ahead,
                     size_t stride, const float* scale, float* y, size_t dim) {
  constexpr size_t kFit = kTileSums / kHeads;
  constexpr size_t kVecs = kFit >= 8 ? 8 : kFit >= 4 ? 4 : kFit >= 2 ? 2 : 1;
  size_t c = 0;
  for (; c + kVecs * kLanes <= dim; c += kVecs * kLanes)
    AddWeighted<kVecs, kHeads>(p, n, v + c, next + c, ahead, stride, scale, y + c, dim);
  for (; c < dim; c += kLanes)
    AddWeighted<1, kHeads>(p, n, v + c, next + c, ahead, stride, scale, y + c, dim);
}

// `rows` rows of K or V at one KV head as floats, zeros behind head_dim.
template <class Kv>
void Convert(const Kv* from, size_t stride, size_t rows, size_t head_dim, size_t dim, float* to) {
  const hn::CappedTag<float, 1> d1;
  for (size_t j = 0; j < rows; ++j, from += stride, to += dim) {
    size_t i = 0;
    for (; i + kLanes <= head_dim; i += kLanes) hn::StoreU(Values(from + i), Floats(), to + i);
    for (; i < head_dim; ++i) {
      if constexpr (std::is_same_v<Kv, float>)
        to[i] = from[i];
      else
        to[i] = hn::GetLane(LoadHalf(d1, from + i));
    }
    std::fill(to + i, to + dim, 0.0f);
  }
}

// Query heads [head, head + kHeads) of the slice, which share a KV head, for tokens [t0, t0 +
// tokens).
template <class Kv>
struct Block {
  const GqaAttentionArgs<float>& a;
  const Kv *k, *v;  // at the KV head
  size_t head, heads, t0, tokens;
  const AttentionScratch& s;

  size_t Positions(size_t t) const { return a.first_position + t0 + t + 1; }

  void Run() const {
    Begin();
    // Half floats are worth converting once for several tokens; read by one they are cheaper to
    // convert on the way into the sums.
    const bool convert = s.dim != a.head_dim || (!std::is_same_v<Kv, float> && tokens > 1);
    for (size_t j = 0; j < Positions(tokens - 1); j += kTilePositions) {
      const Kv *k_tile = k + j * a.kv_stride, *v_tile = v + j * a.kv_stride;
      if (convert) {
        const size_t rows = std::min(kTilePositions, Positions(tokens - 1) - j);
        Convert(k_tile, a.kv_stride, rows, a.head_dim, s.dim, s.k);
        Convert(v_tile, a.kv_stride, rows, a.head_dim, s.dim, s.v);
        Tile<false>(j, s.k, s.v, s.dim);
      } else {
        Tile<true>(j, k_tile, v_tile, a.kv_stride);
      }
    }
    End();
  }

  void Begin() const {
    for (size_t t = 0; t < tokens; ++t) {
      const float* q = a.q + (t0 + t) * a.q_stride + head * a.head_dim;
      Convert(q, a.head_dim, heads, a.head_dim, s.dim, s.q + t * heads * s.dim);
    }
    const size_t queries = tokens * heads;
    std::fill_n(s.y, queries * s.dim, 0.0f);
    std::fill_n(s.largest, queries, -FLT_MAX);  // not -inf: exp(-inf - -inf) is NaN
    std::fill_n(s.sum, queries, 0.0f);
  }

  template <bool kFromMemory, class TileKv>
  void Tile(size_t j, const TileKv* k_tile, const TileKv* v_tile, size_t stride) const {
    const float root = std::sqrt(static_cast<float>(a.head_dim));
    for (size_t t = 0; t < tokens; ++t) {
      if (Positions(t) <= j) continue;
      const size_t left = Positions(t) - j, n = std::min(kTilePositions, left), query = t * heads;
      const bool prefetch = kFromMemory && t == 0;  // the other tokens find it in the cache
      float* p = s.p + query * kTilePositions;
      WithHeads(heads, [&](auto count) LAB_LAMBDA {
        Scores<count>(s.q + query * s.dim, s.dim, k_tile, prefetch ? v_tile : nullptr, stride, n,
                      p);
      });
      for (size_t i = query; i < query + heads; ++i)
        Softmax(s.p + i * kTilePositions, n, root, s.largest[i], s.sum[i], s.scale[i]);
      WithHeads(heads, [&](auto count) LAB_LAMBDA {
        AddWeightedRows<count>(p, n, v_tile, k_tile + n * stride, prefetch ? left - n : 0, stride,
                               s.scale + query, s.y + query * s.dim, s.dim);
      });
    }
  }

  void End() const {
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t h = 0; h < heads; ++h) {
        const float* from = s.y + (t * heads + h) * s.dim;
        float* to = a.y + (t0 + t) * a.y_stride + (head + h) * a.head_dim;
        const float sum = s.sum[t * heads + h];
        ForEach(a.head_dim, [&](auto d, size_t i) LAB_LAMBDA {
          hn::StoreU(hn::Div(hn::LoadU(d, from + i), hn::Set(d, sum)), d, to + i);
        });
      }
    }
  }
};

template <class Kv>
void Attend(const GqaAttentionArgs<float>& a, const Kv* k, const Kv* v, float* scratch) {
  const size_t dim = (a.head_dim + kLanes - 1) / kLanes * kLanes;
  const AttentionScratch s(dim, kMaxTokens * kMaxHeads, scratch);
  for (size_t h = 0; h < a.heads;) {
    const size_t head = a.first_head + h, offset = head / a.group * a.head_dim;
    const size_t left = std::min(a.group - head % a.group, a.heads - h);
    // 7 as 4 + 3, not 6 + 1.
    const size_t parts = (left + kMaxHeads - 1) / kMaxHeads, heads = (left + parts - 1) / parts;
    for (size_t t = 0; t < a.tokens; t += kMaxTokens) {
      Block<Kv>{a, k + offset, v + offset, h, heads, t, std::min(kMaxTokens, a.tokens - t), s}
          .Run();
    }
    h += heads;
  }
}

void GqaAttention(const GqaAttentionArgs<float>& a, float* scratch) {
  if (a.k16)
    Attend(a, a.k16, a.v16, scratch);
  else
    Attend(a, a.k, a.v, scratch);
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(GqaAttention);
void GqaAttentionHwy(const GqaAttentionArgs<float>& a) {
  const size_t dim = (a.head_dim + kMaxLanes - 1) / kMaxLanes * kMaxLanes;
  const size_t floats = AttentionScratch::Floats(dim, kMaxTokens * kMaxHeads);
  HWY_DYNAMIC_DISPATCH(GqaAttention)(a, Scratch(floats));
}
}  // namespace lab
#endif
