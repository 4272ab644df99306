#pragma once
// Mutants of gqa_attention, and the reorderings of it and of rms_norm. Included by lab/mutants.cc
// alone.
#include <cmath>

#include "lab/mutants_sum.h"

namespace lab {

/// Token t alone, seeing keys up to its own position.
template <class T>
GqaAttentionArgs<T> OneToken(const GqaAttentionArgs<T>& a, size_t t) {
  GqaAttentionArgs<T> one = a;
  one.q += t * a.q_stride;
  one.y += t * a.y_stride;
  one.tokens = 1;
  one.first_position += t;
  return one;
}
/// Keys and values of all positions as [positions, kv_heads, head_dim] in a copy that `args` is
/// turned to, rearranged by edit(values, is_key), in either type. A position is kv_stride values.
template <class T>
class ChangedKv {
 public:
  template <class Edit>
  ChangedKv(GqaAttentionArgs<T>& args, Edit edit) {
    const GqaAttentionArgs<T> from = args;
    args.kv_stride = from.kv_heads() * from.head_dim;
    args.kv_head_stride = from.head_dim;
    args.key_block = 1;
    const auto change = [&](auto*& view, auto& copy, bool is_key) {
      if (!view) return;
      copy.resize(from.positions() * args.kv_stride);
      for (size_t j = 0; j < from.positions(); ++j)
        for (size_t h = 0; h < from.kv_heads(); ++h)
          for (size_t i = 0; i < from.head_dim; ++i)
            copy[args.ValueOffset(h, j, i)] =
                view[is_key ? from.KeyOffset(h, j, i) : from.ValueOffset(h, j, i)];
      edit(copy, is_key);
      view = copy.data();
    };
    change(args.k, k_, true);
    change(args.v, v_, false);
    change(args.k16, k16_, true);
    change(args.v16, v16_, false);
  }
  ChangedKv(const ChangedKv&) = delete;
  ChangedKv& operator=(const ChangedKv&) = delete;

 private:
  std::vector<T> k_, v_;
  std::vector<uint16_t> k16_, v16_;
};

/// Without the first of positions that are not interleaved.
template <class T>
void DropFirstKey(GqaAttentionArgs<T>& a) {
  for (const T** p : {&a.k, &a.v})
    if (*p) *p += a.kv_stride;
  for (const uint16_t** p : {&a.k16, &a.v16})
    if (*p) *p += a.kv_stride;
  --a.first_position;
}

struct HeadMapModulo {
  template <class T>
  bool operator()(const GqaAttentionArgs<T>& a, const Inner& inner) const {
    const size_t kv_heads = a.kv_heads();
    if (kv_heads < 2 || a.group < 2) return false;
    for (size_t h = 0; h < a.heads; ++h) {
      GqaAttentionArgs<T> one = a.Slice(h, h + 1);
      one.first_head = (a.first_head + h) % kv_heads * a.group;  // a head that reads that KV head
      inner(one);
    }
    return true;
  }
};
struct MaskSeesNext {
  template <class T>
  bool operator()(const GqaAttentionArgs<T>& a, const Inner& inner) const {
    if (a.tokens < 2) return false;
    for (size_t t = 0; t < a.tokens; ++t) {
      GqaAttentionArgs<T> one = OneToken(a, t);
      if (t + 1 < a.tokens) ++one.first_position;
      inner(one);
    }
    return true;
  }
};
struct MaskMissesSelf {
  template <class T>
  bool operator()(const GqaAttentionArgs<T>& a, const Inner& inner) const {
    for (size_t t = 0; t < a.tokens; ++t) {
      GqaAttentionArgs<T> one = OneToken(a, t);
      if (one.first_position > 0) --one.first_position;
      inner(one);
    }
    return a.first_position + a.tokens > 1;
  }
};
struct FirstKeyDropped {
  template <class T>
  bool operator()(const GqaAttentionArgs<T>& a, const Inner& inner) const {
    GqaAttentionArgs<T> natural = a;
    const ChangedKv<T> kv(natural, [](auto&, bool) {});
    for (size_t t = 0; t < a.tokens; ++t) {
      GqaAttentionArgs<T> one = OneToken(natural, t);
      if (one.first_position > 0) DropFirstKey(one);
      inner(one);
    }
    return a.first_position + a.tokens > 1;
  }
};
struct ScoreScaleMissing {
  template <class T>
  bool operator()(const GqaAttentionArgs<T>& a, const Inner& inner) const {
    std::vector<T> q(a.q, a.q + (a.tokens - 1) * a.q_stride + a.heads * a.head_dim);
    for (T& x : q) x *= static_cast<T>(std::sqrt(static_cast<double>(a.head_dim)));
    GqaAttentionArgs<T> changed = a;
    changed.q = q.data();
    inner(changed);
    return a.first_position + a.tokens > 1;
  }
};
struct StaleKv {
  template <class T>
  bool operator()(const GqaAttentionArgs<T>& a, const Inner& inner) const {
    if (a.first_position + a.tokens < 2) return false;
    GqaAttentionArgs<T> changed = a;
    const ChangedKv<T> kv(changed, [&](auto& values, bool) {
      const auto stride = static_cast<ptrdiff_t>(values.size() / a.positions());
      std::copy(values.end() - 2 * stride, values.end() - stride, values.end() - stride);
    });
    inner(changed);
    return true;
  }
};

/// The formula in float64, with a rounding of the scores q.k before they are scaled.
template <class T, class Score>
bool DirectAttention(const GqaAttentionArgs<T>& a, bool subtract_largest, Score score) {
  const auto at = [&](const T* values, const uint16_t* halves, size_t i) {
    return halves ? static_cast<double>(HalfToFloat(halves[i])) : static_cast<double>(values[i]);
  };
  for (size_t t = 0; t < a.tokens; ++t)
    for (size_t h = 0; h < a.heads; ++h) {
      const size_t seen = a.first_position + t + 1, dim = a.head_dim;
      const size_t kv = (a.first_head + h) / a.group;
      std::vector<double> p(seen);
      for (size_t j = 0; j < seen; ++j) {
        for (size_t i = 0; i < dim; ++i)
          p[j] += static_cast<double>(a.q[t * a.q_stride + h * dim + i]) *
                  at(a.k, a.k16, a.KeyOffset(kv, j, i));
        p[j] = score(p[j]) / std::sqrt(static_cast<double>(dim));
      }
      const double largest = subtract_largest ? *std::max_element(p.begin(), p.end()) : 0;
      double total = 0;
      // In float32, which is what overflows.
      for (double& s : p) total += s = std::exp(static_cast<float>(s - largest));
      for (size_t i = 0; i < dim; ++i) {
        double sum = 0;
        for (size_t j = 0; j < seen; ++j)
          sum += p[j] / total * at(a.v, a.v16, a.ValueOffset(kv, j, i));
        a.y[t * a.y_stride + h * dim + i] = static_cast<T>(sum);
      }
    }
  return true;
}
struct F16Scores {
  template <class T>
  bool operator()(const GqaAttentionArgs<T>& a, const Inner&) const {
    return DirectAttention(a, true, [](double s) {
      return static_cast<double>(RoundToHalf::Round(static_cast<float>(s)));
    });
  }
};
struct SoftmaxNoMax {
  template <class T>
  bool operator()(const GqaAttentionArgs<T>& a, const Inner&) const {
    return DirectAttention(a, false, [](double s) { return s; });
  }
};

// --- reorderings -------------------------------------------------------------------------------

struct ChannelsReversed {
  template <class T>
  bool operator()(const RmsNormArgs<T>& a, const Inner& inner) const {
    std::vector<T> x(a.x, a.x + a.tokens * a.n);
    std::vector<float> weight(a.weight, a.weight + a.n);
    const auto reverse_tokens = [&](T* values) {
      for (size_t t = 0; t < a.tokens; ++t) std::reverse(values + t * a.n, values + (t + 1) * a.n);
    };
    reverse_tokens(x.data());
    std::reverse(weight.begin(), weight.end());
    RmsNormArgs<T> changed = a;
    changed.x = x.data();
    changed.weight = weight.data();
    inner(changed);
    reverse_tokens(a.y);
    return true;
  }
  template <class T>
  bool operator()(const GqaAttentionArgs<T>& a, const Inner& inner) const {
    const auto reverse_heads = [&](auto& values) {
      for (auto head = values.begin(); head < values.end();
           head += static_cast<ptrdiff_t>(a.head_dim))
        std::reverse(head, head + static_cast<ptrdiff_t>(a.head_dim));
    };
    std::vector<T> q(a.q, a.q + (a.tokens - 1) * a.q_stride + a.heads * a.head_dim);
    reverse_heads(q);
    GqaAttentionArgs<T> changed = a;
    changed.q = q.data();
    const ChangedKv<T> kv(changed, [&](auto& values, bool is_key) {
      if (is_key) reverse_heads(values);
    });
    inner(changed);
    return true;
  }
};
struct KeysReversed {
  template <class T>
  bool operator()(const GqaAttentionArgs<T>& a, const Inner& inner) const {
    for (size_t t = 0; t < a.tokens; ++t) {
      GqaAttentionArgs<T> one = OneToken(a, t);
      const ChangedKv<T> kv(one, [&](auto& values, bool) {
        const auto stride = static_cast<ptrdiff_t>(values.size() / one.positions());
        for (ptrdiff_t low = 0, high = static_cast<ptrdiff_t>(one.first_position); low < high;
             ++low, --high)
          std::swap_ranges(values.begin() + low * stride, values.begin() + (low + 1) * stride,
                           values.begin() + high * stride);
      });
      inner(one);
    }
    return a.first_position + a.tokens > 1;
  }
};

}  // namespace lab
