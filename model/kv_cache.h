#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/gqa_attention.h"
#include "kernels/kv_store.h"
#include "lab/aligned.h"
#include "lab/registry.h"

namespace lab {

/// What the KV cache keeps: the values as computed, or half floats (each value rounded to float,
/// then to half). Part of the contract: f16 for q8, f32 for the others unless asked otherwise.
enum class KvType { f32, f16 };
constexpr KvType DefaultKv(Contract contract) {
  return contract == Contract::q8 ? KvType::f16 : KvType::f32;
}
std::string_view NameOf(KvType kv);
/// The value of that name; throws Error naming `flag` and the known names.
KvType ParseKv(std::string_view name, std::string_view flag);

/// Keys and values of the positions seen so far, of all layers: [layer, kv_heads, positions,
/// head_dim], so that a thread which attends with the heads of one KV head reads one stream, keys
/// of kKeyBlock positions interleaved. One piece of memory, for the sake of huge pages. NaN where
/// nothing has been stored.
template <class T>
class KvCache {
 public:
  /// Memory: 2 * layers * kv_heads * head_dim values (T, or 2 bytes under f16) for each position,
  /// of which there are `capacity`, rounded up to a multiple of kKeyBlock. Only after Allocate.
  KvCache(KvType type, size_t layers, size_t kv_heads, size_t head_dim, size_t capacity);
  /// is_name: the memory is never touched; its addresses stand for memory on a device.
  void Allocate(bool is_name);
  /// The pieces of memory that are in use, and their bytes.
  std::vector<std::pair<const void*, size_t>> buffers() const;

  /// The capacity, rounded up.
  size_t positions() const { return layout_.kv_head_stride / head_dim_; }
  /// Lets `args` (of either op) read or write a layer.
  void Bind(size_t layer, GqaAttentionArgs<T>& args) const;
  void Bind(size_t layer, KvStoreArgs<T>& args);
  /// Bytes of one stored value.
  size_t value_bytes() const { return type_ == KvType::f16 ? sizeof(uint16_t) : sizeof(T); }

 private:
  KvType type_;
  size_t kv_heads_, head_dim_;
  KvLayout layout_;
  size_t layer_values_, values_;             // of k, or of v: in a layer, in all
  AlignedVector<T> k_, v_;                   // empty under f16
  AlignedVector<uint16_t> k_half_, v_half_;  // empty under f32
};

/// Does what KvStoreArgs says.
template <class T>
void StoreInCache(const KvStoreArgs<T>& args);

extern template class KvCache<double>;
extern template class KvCache<float>;

}  // namespace lab
