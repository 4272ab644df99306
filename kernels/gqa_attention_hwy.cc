// Three passes for the query heads of one KV head: all scores, their softmax, the weighted sum. K
// and V pass in tiles of positions, which every head uses while they are in the first-level cache.
#include <algorithm>
#include <cmath>

#include "kernels/gqa_attention.h"
#include "kernels/scratch-inl.h"
#include "kernels/targets-inl.h"

#ifndef LAB_KERNELS_GQA_ATTENTION_SIZES_  // once for all targets
#define LAB_KERNELS_GQA_ATTENTION_SIZES_
namespace lab {
namespace {
constexpr size_t kTilePositions = 48;  // 24 KB of K or V at head_dim 128
constexpr size_t kMaxGroup = 16;       // query heads that share a pass
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

// Rows j0 .. j0 + rows - 1 of K or V at one KV head as floats: in place, or half floats converted.
struct KvTile {
  const float* at;
  size_t stride;
};

KvTile LoadKv(const float* full, const uint16_t* half, size_t first, size_t stride, size_t rows,
              size_t head_dim, float* converted) {
  if (!half) return {full + first, stride};
  for (size_t j = 0; j < rows; ++j) {
    ForEach(head_dim, [&](auto d, size_t i) LAB_LAMBDA {
      hn::StoreU(LoadHalf(d, half + first + j * stride + i), d, converted + j * head_dim + i);
    });
  }
  return {converted, head_dim};
}

// Highway's Exp gives 0 for NaN.
template <class D>
HWY_INLINE hn::Vec<D> ExpOrNaN(D d, hn::Vec<D> x) {
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, x));
}

// Turns sums of products into exp(score - largest score) and returns their sum. A NaN among the
// scores may escape Max, but not exp(NaN - largest).
float Softmax(float* p, size_t n, float root) {
  const Floats d;
  FloatVec largest_vec = hn::Set(d, -HUGE_VALF), sum_vec = hn::Zero(d);
  float largest = -HUGE_VALF, sum = 0;
  const auto by_lanes = [](auto tag, FloatVec& vec, float& one, auto op) LAB_LAMBDA {
    if constexpr (hn::MaxLanes(tag) == kLanes)
      vec = op(vec);
    else
      one = hn::GetLane(op(hn::Set(tag, one)));
  };
  ForEach(n, [&](auto tag, size_t j) LAB_LAMBDA {
    const auto score = hn::Div(hn::LoadU(tag, p + j), hn::Set(tag, root));
    hn::StoreU(score, tag, p + j);
    by_lanes(tag, largest_vec, largest, [&](auto v) LAB_LAMBDA { return hn::Max(v, score); });
  });
  largest = std::max(largest, hn::GetLane(hn::MaxOfLanes(d, largest_vec)));
  ForEach(n, [&](auto tag, size_t j) LAB_LAMBDA {
    const auto e = ExpOrNaN(tag, hn::Sub(hn::LoadU(tag, p + j), hn::Set(tag, largest)));
    hn::StoreU(e, tag, p + j);
    by_lanes(tag, sum_vec, sum, [&](auto v) LAB_LAMBDA { return hn::Add(v, e); });
  });
  return sum + FoldLanes(d, sum_vec);
}

// y[c] += sum_j p[j] v[j, c] for kVecs vectors of columns.
template <size_t kVecs, class D>
HWY_INLINE void AddWeighted(D d, const float* p, size_t n, const float* v, size_t stride,
                            float* y) {
  constexpr size_t kStep = hn::MaxLanes(D());
  hn::Vec<D> sums[kVecs];
  Unroll<kVecs>([&](auto i) LAB_LAMBDA { sums[i] = hn::LoadU(d, y + i * kStep); });
  for (size_t j = 0; j < n; ++j) {
    const auto weight = hn::Set(d, p[j]);
    Unroll<kVecs>([&](auto i) LAB_LAMBDA {
      sums[i] = hn::MulAdd(weight, hn::LoadU(d, v + j * stride + i * kStep), sums[i]);
    });
  }
  Unroll<kVecs>([&](auto i) LAB_LAMBDA { hn::StoreU(sums[i], d, y + i * kStep); });
}

// Every column is one chain of additions in the order of positions, whatever the tiles.
void AddWeightedRows(const float* p, size_t n, KvTile v, size_t head_dim, float* y) {
  constexpr size_t kVecs = 8;
  size_t c = 0;
  for (; c + kVecs * kLanes <= head_dim; c += kVecs * kLanes)
    AddWeighted<kVecs>(Floats(), p, n, v.at + c, v.stride, y + c);
  ForEach(head_dim - c, [&](auto d, size_t i) LAB_LAMBDA {
    AddWeighted<1>(d, p, n, v.at + c + i, v.stride, y + c + i);
  });
}

// Query heads [first, first + heads) of the slice, which share a KV head, for token t.
void AttendGroup(const GqaAttentionArgs<float>& a, size_t t, size_t first, size_t heads,
                 float* scratch) {
  const size_t n = a.first_position + t + 1, dim = a.head_dim;
  const size_t kv_offset = (a.first_head + first) / a.group * dim;
  const float* q = a.q + t * a.q_stride + first * dim;
  float* y = a.y + t * a.y_stride + first * dim;
  float *converted = scratch, *p = scratch + kTilePositions * dim;
  const auto for_each_tile = [&](const float* full, const uint16_t* half, auto use) LAB_LAMBDA {
    for (size_t j = 0; j < n; j += kTilePositions) {
      const size_t rows = std::min(kTilePositions, n - j), at = j * a.kv_stride + kv_offset;
      use(j, rows, LoadKv(full, half, at, a.kv_stride, rows, dim, converted));
    }
  };

  for_each_tile(a.k, a.k16, [&](size_t j, size_t rows, KvTile k) LAB_LAMBDA {
    DotAll(k.at, k.stride, rows, q, dim, heads, dim,
           [&](size_t r, size_t h, float dot) LAB_LAMBDA { p[h * n + j + r] = dot; });
  });
  float sums[kMaxGroup];
  for (size_t h = 0; h < heads; ++h)
    sums[h] = Softmax(p + h * n, n, std::sqrt(static_cast<float>(dim)));
  std::fill_n(y, heads * dim, 0.0f);
  for_each_tile(a.v, a.v16, [&](size_t j, size_t rows, KvTile v) LAB_LAMBDA {
    for (size_t h = 0; h < heads; ++h) AddWeightedRows(p + h * n + j, rows, v, dim, y + h * dim);
  });
  for (size_t h = 0; h < heads; ++h) {
    ForEach(dim, [&](auto d, size_t i) LAB_LAMBDA {
      float* at = y + h * dim + i;
      hn::StoreU(hn::Div(hn::LoadU(d, at), hn::Set(d, sums[h])), d, at);
    });
  }
}

void GqaAttention(const GqaAttentionArgs<float>& a, float* scratch) {
  for (size_t t = 0; t < a.tokens; ++t) {
    for (size_t h = 0; h < a.heads;) {
      const size_t head = a.first_head + h;
      const size_t left = std::min(a.group - head % a.group, a.heads - h);
      const size_t heads = std::min(left, kMaxGroup);
      AttendGroup(a, t, h, heads, scratch);
      h += heads;
    }
  }
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lab {
HWY_EXPORT(GqaAttention);
void GqaAttentionHwy(const GqaAttentionArgs<float>& a) {
  const size_t positions = a.first_position + a.tokens;
  const size_t floats = kTilePositions * a.head_dim + std::min(a.group, kMaxGroup) * positions;
  HWY_DYNAMIC_DISPATCH(GqaAttention)(a, Scratch(floats));
}
}  // namespace lab
#endif
