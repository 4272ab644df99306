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
      layers_(layers),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      kv_head_stride_((capacity + kKeyBlock - 1) / kKeyBlock * kKeyBlock * head_dim),
      layer_values_(kv_heads * kv_head_stride_) {}

template <class T>
void KvCache<T>::Allocate(bool is_name) {
  const size_t values = layers_ * layer_values_;
  const auto make = [&](auto& cache, auto nan) {
    if (is_name)
      cache.reserve(values);
    else
      cache.assign(values, nan);
  };
  if (type_ == KvType::f16) {
    make(k_half_, kHalfNan);
    make(v_half_, kHalfNan);
  } else {
    make(k_, std::numeric_limits<T>::quiet_NaN());
    make(v_, std::numeric_limits<T>::quiet_NaN());
  }
}

template <class T>
std::vector<std::pair<const void*, size_t>> KvCache<T>::buffers() const {
  const size_t bytes = layers_ * layer_values_ * value_bytes();
  if (type_ == KvType::f16) return {{k_half_.data(), bytes}, {v_half_.data(), bytes}};
  return {{k_.data(), bytes}, {v_.data(), bytes}};
}

template <class T>
template <class Args>
void KvCache<T>::BindLayout(Args& args) const {
  args.kv_stride = head_dim_;
  args.kv_head_stride = kv_head_stride_;
  args.key_block = kKeyBlock;
}

template <class T>
void KvCache<T>::Bind(size_t layer, GqaAttentionArgs<T>& args) const {
  BindLayout(args);
  const size_t at = layer * layer_values_;
  const bool half = type_ == KvType::f16;
  args.k = half ? nullptr : k_.data() + at;
  args.v = half ? nullptr : v_.data() + at;
  args.k16 = half ? k_half_.data() + at : nullptr;
  args.v16 = half ? v_half_.data() + at : nullptr;
}

template <class T>
void KvCache<T>::Bind(size_t layer, KvStoreArgs<T>& args) {
  BindLayout(args);
  args.kv_heads = kv_heads_;
  args.head_dim = head_dim_;
  const size_t at = layer * layer_values_;
  const bool half = type_ == KvType::f16;
  args.k_cache = half ? nullptr : k_.data() + at;
  args.v_cache = half ? nullptr : v_.data() + at;
  args.k_half = half ? k_half_.data() + at : nullptr;
  args.v_half = half ? v_half_.data() + at : nullptr;
}

template <class T>
void StoreInCache(const KvStoreArgs<T>& a) {
  GqaAttentionArgs<T> layout = {};
  layout.kv_stride = a.kv_stride;
  layout.kv_head_stride = a.kv_head_stride;
  layout.key_block = a.key_block;
  const auto put = [&](auto* k_cache, auto* v_cache, auto convert) {
    for (size_t t = 0; t < a.tokens; ++t)
      for (size_t h = 0; h < a.kv_heads; ++h) {
        const size_t from = t * a.stride + h * a.head_dim, position = a.first_position + t;
        auto* const key = k_cache + layout.KeyOffset(h, position, 0);
        auto* const value = v_cache + layout.ValueOffset(h, position, 0);
        for (size_t i = 0; i < a.head_dim; ++i) {
          key[i * a.key_block] = convert(a.k[from + i]);
          value[i] = convert(a.v[from + i]);
        }
      }
  };
  if (a.k_half)
    put(a.k_half, a.v_half, [](T x) { return FloatToHalf(static_cast<float>(x)); });
  else
    put(a.k_cache, a.v_cache, [](T x) { return x; });
}

template void StoreInCache(const KvStoreArgs<double>&);
template void StoreInCache(const KvStoreArgs<float>&);
template class KvCache<double>;
template class KvCache<float>;

}  // namespace lab
