#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/kv_layout.h"

namespace lab {

/// k[t], v[t] become position first_position + t of the cache that gqa_attention reads, as values
/// or as half floats.
template <class T>
struct KvStoreArgs : KvLayout {
  const T *k, *v;  ///< [tokens, kv_heads, head_dim], `stride` values from token to token
  size_t tokens, stride, first_position;
  T* k_cache = nullptr;  ///< a layer of the cache
  T* v_cache = nullptr;
  uint16_t* k_half = nullptr;  ///< these two or those two are null
  uint16_t* v_half = nullptr;
  size_t kv_heads = 0, head_dim = 0;
  const size_t* first_position_at = nullptr;  ///< as in GqaAttentionArgs
};

}  // namespace lab
