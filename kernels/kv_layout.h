#pragma once
#include <cstddef>

namespace lab {

/// The key_block that the Highway row reads fastest: a multiple of every vector length.
constexpr size_t kKeyBlock = 16;

/// Where keys and values lie. Functions are constexpr so that device code may call them.
struct KvLayout {
  /// From position to position (at least head_dim), and from KV head to KV head: a cache of
  /// [positions, kv_heads, head_dim] has kv_heads * head_dim and head_dim, one of
  /// [kv_heads, positions, head_dim] has head_dim and positions * head_dim.
  size_t kv_stride, kv_head_stride;
  /// Keys of so many positions are interleaved, channel by channel: [positions / key_block,
  /// head_dim, key_block], so that a vector holds one channel of several keys and their scores need
  /// no sum over lanes. 1: not at all; more only where kv_stride is head_dim. Memory must reach to
  /// the end of the last block.
  size_t key_block;

  constexpr size_t KeyOffset(size_t kv_head, size_t position, size_t channel) const {
    const size_t inside = position % key_block;
    return kv_head * kv_head_stride + (position - inside) * kv_stride + channel * key_block +
           inside;
  }
  constexpr size_t ValueOffset(size_t kv_head, size_t position, size_t channel) const {
    return kv_head * kv_head_stride + position * kv_stride + channel;
  }
};

}  // namespace lab
