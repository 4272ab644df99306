#pragma once
#include <cstddef>
#include <vector>

namespace lab {

/// How many unpacked rows a matvec of several tokens keeps: the tokens pass through the caches once
/// for all of them.
inline constexpr size_t kRowGroup = 12;

/// Rows of a matrix that ops made of several steps take at a time: of many tokens so few that their
/// activations stay in the caches, of one token all, because every change from one stream of
/// weights to another costs (gate_up_swiglu, Zen 4: with 96 rows 87 % of the read bandwidth, with
/// all 97 %).
constexpr size_t ChunkRows(size_t tokens, size_t rows) {
  return tokens == 1 ? rows : 8 * kRowGroup;
}

/// n values of this thread's own, until its next call for that type. To be called outside the code
/// compiled for one target: std::vector's functions must not exist in a version for AVX-512 alone.
template <class T = float>
T* Scratch(size_t n) {
  thread_local std::vector<T> values;
  if (values.size() < n) values.resize(n);
  return values.data();
}

}  // namespace lab
