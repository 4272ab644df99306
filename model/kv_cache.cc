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
      layout_{head_dim, (capacity + kKeyBlock - 1) / kKeyBlock * kKeyBlock * head_dim, kKeyBlock},
      layer_values_(kv_heads * layout_.kv_head_stride),
      values_(layers * layer_values_) {}

template <class T>
void KvCache<T>::Allocate(bool is_name) {
  const auto make = [&](auto& cache, auto nan) {
    if (is_name)
      cache.reserve(values_);
    else
      cache.assign(values_, nan);
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
  const size_t bytes = values_ * value_bytes();
  if (type_ == KvType::f16) return {{k_half_.data(), bytes}, {v_half_.data(), bytes}};
  return {{k_.data(), bytes}, {v_.data(), bytes}};
}

namespace {

// Null where the cache keeps values of the other type.
template <class Vector>
auto At(Vector& values, size_t at) {
  return values.data() ? values.data() + at : nullptr;
}

}  // namespace

template <class T>
void KvCache<T>::Bind(size_t layer, GqaAttentionArgs<T>& args) const {
  static_cast<KvLayout&>(args) = layout_;
  const size_t at = layer * layer_values_;
  args.k = At(k_, at), args.v = At(v_, at);
  args.k16 = At(k_half_, at), args.v16 = At(v_half_, at);
  args.most_positions = positions();
}

template <class T>
void KvCache<T>::Bind(size_t layer, KvStoreArgs<T>& args) {
  static_cast<KvLayout&>(args) = layout_;
  args.kv_heads = kv_heads_;
  args.head_dim = head_dim_;
  const size_t at = layer * layer_values_;
  args.k_cache = At(k_, at), args.v_cache = At(v_, at);
  args.k_half = At(k_half_, at), args.v_half = At(v_half_, at);
}

template <class T>
void StoreInCache(const KvStoreArgs<T>& a) {
  const auto put = [&](auto* k_cache, auto* v_cache, auto convert) {
    for (size_t t = 0; t < a.tokens; ++t)
      for (size_t h = 0; h < a.kv_heads; ++h) {
        const size_t from = t * a.stride + h * a.head_dim, position = a.first_position + t;
        auto* const key = k_cache + a.KeyOffset(h, position, 0);
        auto* const value = v_cache + a.ValueOffset(h, position, 0);
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
