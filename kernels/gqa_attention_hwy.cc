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
constexpr size_t kTileBlocks = kTilePositions / kKeyBlock;
constexpr size_t kMaxHeads = 6;  // query heads in one register tile
// Tokens that share a tile of K and V.
constexpr size_t kMaxTokens = GqaAttentionArgs<float>::kTokenGrain;
constexpr size_t kMaxLanes = 16;

// Work space of one block of tokens, floats. `dim` is head_dim in whole vectors.
struct AttentionScratch {
  size_t dim;
  float* y;              // [queries, dim]; query = token * heads + head
  float* p;              // [queries, kTilePositions]: scores, then their weights
  float* k;              // [kTileBlocks, head_dim, kKeyBlock]: a tile converted or interleaved
  float* v;              // [kTilePositions, dim]: a tile converted or padded
  float *largest, *sum;  // [queries]: so far
  float* scale;          // [queries]: what the sums so far lose as `largest` grows

  AttentionScratch(size_t dim, size_t queries, float* at)
      : dim(dim),
        y(at),
        p(y + queries * dim),
        k(p + queries * kTilePositions),
        v(k + kTilePositions * dim),
        largest(v + kTilePositions * dim),
        sum(largest + queries),
        scale(sum + queries) {}
  static size_t Floats(size_t dim, size_t queries) {
    return queries * dim + queries * kTilePositions + 2 * kTilePositions * dim + 3 * queries;
  }
};
}  // namespace
}  // namespace lab
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gqa_attention_hwy.cc"
#include "hwy/foreach_target.h"  // compiles this file once per target
// Per target, hence behind it.
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

// exp(x) for x <= 0 and for NaN, within 1.01 ulp (every float of [-87, 0] was tried, with FMA), but
// 0 below -87, where it comes near the smallest normal float: Ice Lake takes long for products of
// smaller ones (4096 positions of layer 3: 724 us with them, 465 where the processor flushes them).
// Shorter than Highway's Exp, which takes any x: notes/results.md, "what softmax costs".
HWY_INLINE FloatVec ExpOfNegative(FloatVec x) {
  const Floats d;
  const hn::RebindToUnsigned<Floats> du;
  const auto c = [&](float value) LAB_LAMBDA { return hn::Set(d, value); };
  // x = n ln(2) + r. 1.5 * 2^23 puts n into the lowest bits, 127 makes an exponent of it.
  const auto shifted = hn::MulAdd(x, c(1.44269504f), c(0x1.8p23f + 127));
  const auto n = hn::Sub(shifted, c(0x1.8p23f + 127));
  auto r = hn::NegMulAdd(n, c(0x1.62e4p-1f), x);  // few bits: times n it is exact
  r = hn::NegMulAdd(n, c(1.42860677e-6f), r);
  // 1 + r + r^2 polynomial(r): minimax on |r| <= ln(2) / 2, relative error 3.6e-9.
  auto e = hn::MulAdd(r, c(0.00138145406f), c(0.00836874545f));
  e = hn::MulAdd(r, e, c(0.041668389f));
  e = hn::MulAdd(r, e, c(0.166665211f));
  e = hn::MulAdd(r, e, c(0.49999994f));
  e = hn::Add(hn::MulAdd(hn::Mul(r, r), e, r), c(1));
  const auto power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, shifted)));
  return hn::IfThenZeroElse(hn::Lt(x, c(-87)), hn::Mul(e, power));
}

// f(Index<n>()) for n = heads <= kMaxHeads.
template <size_t kHeads = kMaxHeads, class F>
HWY_INLINE void WithHeads(size_t heads, F&& f) {
  if constexpr (kHeads > 1) {
    if (heads < kHeads) return WithHeads<kHeads - 1>(heads, f);
  }
  f(Index<kHeads>());
}

// Asks for n values that will be read a tile of positions later: memory is too far away for what
// the hardware foresees. Measured on Zen 3, 4096 positions: 119 to 155 ns a position without, 57 to
// 70 with.
template <size_t n, class Kv>
HWY_INLINE void PrefetchValues(const Kv* from) {
  for (size_t i = 0; i < n; i += 64 / sizeof(Kv)) PrefetchL2(from + i);
}

// p[h, j] = q[h] . k[j] for kVecs vectors of positions from `vec` on: every score is one chain of
// additions in the order of channels. `ahead`: the tile to prefetch, or null.
template <size_t kVecs, size_t kHeads, class Kv>
HWY_INLINE void Dots(const float* q, size_t head_dim, const Kv* k, const Kv* ahead, size_t vec,
                     float* p) {
  constexpr size_t kVecsInBlock = kKeyBlock / kLanes;
  const Kv* keys[kVecs];
  Unroll<kVecs>([&](auto r) LAB_LAMBDA {
    keys[r] =
        k + (vec + r) / kVecsInBlock * (kKeyBlock * head_dim) + (vec + r) % kVecsInBlock * kLanes;
  });
  FloatVec sums[kHeads][kVecs];
  Unroll<kHeads>([&](auto h) LAB_LAMBDA {
    Unroll<kVecs>([&](auto r) LAB_LAMBDA { sums[h][r] = hn::Zero(Floats()); });
  });
  for (size_t i = 0; i < head_dim; ++i) {
    FloatVec channel[kVecs];
    Unroll<kVecs>([&](auto r) LAB_LAMBDA { channel[r] = Values(keys[r] + i * kKeyBlock); });
    if (ahead) PrefetchValues<kVecs * kLanes>(ahead + (vec * head_dim + i * kVecs) * kLanes);
    Unroll<kHeads>([&](auto h) LAB_LAMBDA {
      const FloatVec query = hn::Set(Floats(), q[h * head_dim + i]);
      Unroll<kVecs>([&](auto r)
                        LAB_LAMBDA { sums[h][r] = hn::MulAdd(channel[r], query, sums[h][r]); });
    });
  }
  Unroll<kHeads>([&](auto h) LAB_LAMBDA {
    Unroll<kVecs>([&](auto r) LAB_LAMBDA {
      hn::StoreU(sums[h][r], Floats(), p + h * kTilePositions + (vec + r) * kLanes);
    });
  });
}

// p[h, j] = q[h] . k[j] for the positions of a tile, in whole vectors.
template <size_t kHeads, class Kv>
void Scores(const float* q, size_t head_dim, const Kv* k, const Kv* ahead, size_t positions,
            float* p) {
  constexpr size_t kFit = kTileSums / kHeads;
  constexpr size_t kVecs = kFit >= 4 ? 4 : kFit >= 2 ? 2 : 1;
  const size_t vecs = (positions + kLanes - 1) / kLanes;
  size_t vec = 0;
  for (; vec + kVecs <= vecs; vec += kVecs) Dots<kVecs, kHeads>(q, head_dim, k, ahead, vec, p);
  for (; vec < vecs; ++vec) Dots<1, kHeads>(q, head_dim, k, ahead, vec, p);
}

// Turns n sums of products of each head into exp(score - largest score so far). A NaN among the
// scores may escape Max, but not exp(NaN - largest), which makes the whole sum NaN whatever the
// weights beside it are. All heads together: what one waits for at its end is done beside the
// others.
void Softmax(float* p, size_t heads, size_t n, float root, float* largest, float* sum,
             float* scale) {
  const Floats d;
  const size_t whole = (n + kLanes - 1) / kLanes * kLanes;
  HWY_ALIGN float change[kMaxLanes] = {};
  for (size_t h = 0; h < heads; ++h) {
    float* scores = p + h * kTilePositions;
    std::fill(scores + n, scores + whole, -HUGE_VALF);  // exp gives 0
    FloatVec largest_vec = hn::Set(d, largest[h]);
    for (size_t j = 0; j < whole; j += kLanes) {
      const FloatVec score = hn::Div(hn::LoadU(d, scores + j), hn::Set(d, root));
      hn::StoreU(score, d, scores + j);
      largest_vec = hn::Max(largest_vec, score);
    }
    const float before = largest[h];
    largest[h] = hn::GetLane(hn::MaxOfLanes(d, largest_vec));
    change[h] = before - largest[h];
  }
  for (size_t h = 0; h < heads; h += kLanes)
    hn::Store(ExpOfNegative(hn::Load(d, change + h)), d, change + h);
  for (size_t h = 0; h < heads; ++h) {
    float* scores = p + h * kTilePositions;
    FloatVec sum_vec = hn::Zero(d);
    for (size_t j = 0; j < whole; j += kLanes) {
      const FloatVec e = ExpOfNegative(hn::Sub(hn::LoadU(d, scores + j), hn::Set(d, largest[h])));
      hn::StoreU(e, d, scores + j);
      sum_vec = hn::Add(sum_vec, e);
    }
    scale[h] = change[h];
    sum[h] = sum[h] * scale[h] + FoldLanes(d, sum_vec);
  }
}

// y[h] = scale[h] y[h] + sum_j p[h, j] v[j] for kVecs vectors of columns: every column is one chain
// of additions in the order of positions. `ahead`: what to prefetch meanwhile, or null.
template <size_t kVecs, size_t kHeads, class Kv>
HWY_INLINE void AddWeighted(const float* p, size_t n, const Kv* v, const Kv* ahead, size_t stride,
                            const float* scale, float* y, size_t dim) {
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
    if (ahead) PrefetchValues<kVecs * kLanes>(ahead + j * kVecs * kLanes);
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
void AddWeightedRows(const float* p, size_t n, const Kv* v, const Kv* ahead, size_t stride,
                     const float* scale, float* y, size_t dim) {
  constexpr size_t kFit = kTileSums / kHeads;
  constexpr size_t kVecs = kFit >= 8 ? 8 : kFit >= 4 ? 4 : kFit >= 2 ? 2 : 1;
  const auto ahead_of = [&](size_t c) { return ahead ? ahead + c * n : nullptr; };
  size_t c = 0;
  for (; c + kVecs * kLanes <= dim; c += kVecs * kLanes)
    AddWeighted<kVecs, kHeads>(p, n, v + c, ahead_of(c), stride, scale, y + c, dim);
  for (; c < dim; c += kLanes)
    AddWeighted<1, kHeads>(p, n, v + c, ahead_of(c), stride, scale, y + c, dim);
}

template <class Kv>
float ToFloat(const Kv& x) {
  if constexpr (std::is_same_v<Kv, float>)
    return x;
  else
    return HalfValue(x);
}

// n values as floats; n in whole vectors.
template <class Kv>
HWY_INLINE void Convert(const Kv* from, size_t n, float* to) {
  for (size_t i = 0; i < n; i += kLanes) hn::StoreU(Values(from + i), Floats(), to + i);
}

// Query heads [head, head + heads) of the slice, which share KV head kv_head, for tokens [t0, t0 +
// tokens).
template <class Kv>
struct Block {
  const GqaAttentionArgs<float>& a;
  const Kv *k, *v;
  size_t kv_head, head, heads, t0, tokens;
  const AttentionScratch& s;

  size_t Positions(size_t t) const { return a.first_position + t0 + t + 1; }

  void Run() const {
    Begin();
    // Half floats are worth converting once for several tokens; read by one they are cheaper to
    // convert on the way into the sums.
    const bool move = (!std::is_same_v<Kv, float> && tokens > 1) || a.key_block != kKeyBlock ||
                      s.dim != a.head_dim;
    for (size_t j = 0; j < Positions(tokens - 1); j += kTilePositions) {
      if (move) {
        Move(j, std::min(kTilePositions, Positions(tokens - 1) - j));
        Tile<false>(j, s.k, s.v, s.dim);
      } else {
        Tile<true>(j, k + a.KeyOffset(kv_head, j, 0), v + a.ValueOffset(kv_head, j, 0),
                   a.kv_stride);
      }
    }
    End();
  }

  // A tile as floats, keys interleaved, zeros behind the head_dim values of a position.
  void Move(size_t j, size_t positions) const {
    if (a.key_block == kKeyBlock) {
      const size_t blocks = (positions + kKeyBlock - 1) / kKeyBlock;
      Convert(k + a.KeyOffset(kv_head, j, 0), blocks * kKeyBlock * a.head_dim, s.k);
    } else {
      const KvLayout tile = {a.head_dim, 0, kKeyBlock};
      for (size_t r = 0; r < positions; ++r)
        for (size_t i = 0; i < a.head_dim; ++i)
          s.k[tile.KeyOffset(0, r, i)] = ToFloat(k[a.KeyOffset(kv_head, j + r, i)]);
    }
    const size_t whole = a.head_dim / kLanes * kLanes;
    for (size_t r = 0; r < positions; ++r) {
      const Kv* from = v + a.ValueOffset(kv_head, j + r, 0);
      float* to = s.v + r * s.dim;
      Convert(from, whole, to);
      for (size_t i = whole; i < s.dim; ++i) to[i] = i < a.head_dim ? ToFloat(from[i]) : 0;
    }
  }

  void Begin() const {
    const size_t queries = tokens * heads;
    std::fill_n(s.y, queries * s.dim, 0.0f);
    std::fill_n(s.largest, queries, -FLT_MAX);  // not -inf: exp(-inf - -inf) is NaN
    std::fill_n(s.sum, queries, 0.0f);
  }

  // kFromMemory: the tile after this one is worth prefetching.
  template <bool kFromMemory, class Keys, class Vals>
  void Tile(size_t j, const Keys* keys, const Vals* values, size_t stride) const {
    const float root = std::sqrt(static_cast<float>(a.head_dim));
    for (size_t t = 0; t < tokens; ++t) {
      if (Positions(t) <= j) continue;
      const size_t left = Positions(t) - j, n = std::min(kTilePositions, left), query = t * heads;
      // The other tokens find it in the cache.
      const bool prefetch = kFromMemory && t == 0 && left > n;
      const Keys* keys_ahead = prefetch ? keys + kTilePositions * a.head_dim : nullptr;
      const Vals* values_ahead = prefetch ? values + kTilePositions * stride : nullptr;
      const float* q = a.q + (t0 + t) * a.q_stride + head * a.head_dim;
      float* p = s.p + query * kTilePositions;
      WithHeads(heads, [&](auto count)
                           LAB_LAMBDA { Scores<count>(q, a.head_dim, keys, keys_ahead, n, p); });
      Softmax(p, heads, n, root, s.largest + query, s.sum + query, s.scale + query);
      WithHeads(heads, [&](auto count) LAB_LAMBDA {
        AddWeightedRows<count>(p, n, values, values_ahead, stride, s.scale + query,
                               s.y + query * s.dim, s.dim);
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
    const size_t head = a.first_head + h;
    const size_t left = std::min(a.group - head % a.group, a.heads - h);
    // 7 as 4 + 3, not 6 + 1.
    const size_t parts = (left + kMaxHeads - 1) / kMaxHeads, heads = (left + parts - 1) / parts;
    for (size_t t = 0; t < a.tokens; t += kMaxTokens) {
      const size_t tokens = std::min(kMaxTokens, a.tokens - t);
      Block<Kv>{a, k, v, head / a.group, h, heads, t, tokens, s}.Run();
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
