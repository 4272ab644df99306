#include "model/kv_cache.h"

#include <limits>

#include "kernels/half.h"
#include "lab/names.h"

namespace lab {
namespace {

constexpr std::string_view kKvNames[] = {"f32", "f16"};
constexpr uint16_t kHalfNan = 0x7e00;

}  // namespace

std::string_view NameOf(KvType kv) {
  return kKvNames[static_cast<size_t>(kv)];
}

KvType ParseKv(std::string_view name, std::string_view flag) {
  return static_cast<KvType>(IndexOfName(kKvNames, name, flag));
}

template <class T>
KvCache<T>::KvCache(KvType type, size_t layers, size_t kv_heads, size_t head_dim, size_t capacity)
    : type_(type),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      kv_head_stride_((capacity + kKeyBlock - 1) / kKeyBlock * kKeyBlock * head_dim),
      layer_values_(kv_heads * kv_head_stride_) {
  const size_t values = layers * layer_values_;
  if (type == KvType::f16) {
    for (auto* cache : {&k_half_, &v_half_}) cache->assign(values, kHalfNan);
  } else {
    for (auto* cache : {&k_, &v_}) cache->assign(values, std::numeric_limits<T>::quiet_NaN());
  }
}

template <class T>
void KvCache<T>::Store(size_t layer, size_t first, size_t tokens, const T* k, const T* v,
                       size_t stride) {
  const size_t at = layer * layer_values_;
  if (type_ == KvType::f16)
    Put(&k_half_[at], &v_half_[at], first, tokens, k, v, stride,
        [](T x) { return FloatToHalf(static_cast<float>(x)); });
  else
    Put(&k_[at], &v_[at], first, tokens, k, v, stride, [](T x) { return x; });
}

template <class T>
template <class To, class Convert>
void KvCache<T>::Put(To* k_layer, To* v_layer, size_t first, size_t tokens, const T* k, const T* v,
                     size_t stride, Convert convert) const {
  const GqaAttentionArgs<T> layout = Layout();
  for (size_t t = 0; t < tokens; ++t)
    for (size_t h = 0; h < kv_heads_; ++h) {
      const size_t from = t * stride + h * head_dim_;
      To* const key = k_layer + layout.KeyOffset(h, first + t, 0);
      To* const value = v_layer + layout.ValueOffset(h, first + t, 0);
      for (size_t i = 0; i < head_dim_; ++i) {
        key[i * kKeyBlock] = convert(k[from + i]);
        value[i] = convert(v[from + i]);
      }
    }
}

template <class T>
GqaAttentionArgs<T> KvCache<T>::Layout() const {
  GqaAttentionArgs<T> layout = {};
  layout.head_dim = layout.kv_stride = head_dim_;
  layout.kv_head_stride = kv_head_stride_;
  layout.key_block = kKeyBlock;
  return layout;
}

template <class T>
void KvCache<T>::Bind(size_t layer, GqaAttentionArgs<T>& args) const {
  const GqaAttentionArgs<T> layout = Layout();
  args.kv_stride = layout.kv_stride;
  args.kv_head_stride = layout.kv_head_stride;
  args.key_block = layout.key_block;
  const size_t at = layer * layer_values_;
  if (type_ == KvType::f16) {
    args.k16 = &k_half_[at];
    args.v16 = &v_half_[at];
  } else {
    args.k = &k_[at];
    args.v = &v_[at];
  }
}

template class KvCache<double>;
template class KvCache<float>;

}  // namespace lab
