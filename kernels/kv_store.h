#pragma once
#include <cstddef>
#include <cstdint>

namespace lab {

/// k[t], v[t] become position first_position + t of the caches, as floats or as half floats.
struct KvStoreArgs {
  const float *k, *v;  ///< [tokens, kv_dim], `stride` values from token to token
  float *k_cache, *v_cache;
  uint16_t *k_half, *v_half;  ///< [positions, kv_dim]; these two or those two are null
  size_t tokens, kv_dim, stride, first_position;
  const size_t* first_position_at;  ///< as in GqaAttentionArgs
};

}  // namespace lab
