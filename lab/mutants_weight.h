#pragma once
// Mutants that change the bytes of the weights, as a kernel that unpacks them wrongly would.
// Included by lab/mutants.cc alone.
#include <algorithm>
#include <bit>
#include <concepts>
#include <cstring>
#include <deque>
#include <limits>
#include <vector>

#include "kernels/rows8.h"
#include "lab/registry.h"
#include "reference/dequant_ref.h"

namespace lab {

/// The row under a mutant: runs it on other arguments of the same op.
struct Inner {
  const Row& row;
  int threads;
  template <class Args>
  void operator()(const Args& args) const {
    RunRow(row, args, threads);
  }
};

/// The weight matrices of an op's arguments.
template <class T>
std::vector<WeightView*> WeightsOf(DequantArgs<T>& a) {
  return {&a.w};
}
template <class T>
std::vector<WeightView*> WeightsOf(EmbedArgs<T>& a) {
  return {&a.table};
}
template <class T>
std::vector<WeightView*> WeightsOf(MatvecArgs<T>& a) {
  return {&a.w};
}
template <class T>
std::vector<WeightView*> WeightsOf(GateUpArgs<T>& a) {
  return {&a.w_gate, &a.w_up};
}
template <class T>
std::vector<WeightView*> WeightsOf(GateUpSwigluArgs<T>& a) {
  return WeightsOf(a.gate_up);
}
template <class A>
concept HasWeights = requires(A a) {
  WeightsOf(a);
};

/// Where a block is.
struct BlockPlace {
  size_t row, rows, block, blocks;
};

/// Calls edit(block, place) for every block of a copy, if the edit knows blocks of that type.
template <class Edit, class Block>
bool EditAs(const WeightView& w, std::vector<uint8_t>& bytes) {
  if constexpr (requires(Block & b, BlockPlace p) { Edit()(b, p); }) {
    const size_t blocks = w.row_bytes() / sizeof(Block);
    for (size_t i = 0; i < w.rows * blocks; ++i) {
      Block block;
      std::memcpy(&block, &bytes[i * sizeof block], sizeof block);
      Edit()(block, BlockPlace{i / blocks, w.rows, i % blocks, blocks});
      std::memcpy(&bytes[i * sizeof block], &block, sizeof block);
    }
    return true;
  } else {
    return false;
  }
}

template <class Edit>
bool EditWeights(const WeightView& w, std::vector<uint8_t>& bytes) {
  switch (w.type) {
    case BlockType::F32:
      return EditAs<Edit, float>(w, bytes);
    case BlockType::F16:
    case BlockType::BF16:
      return EditAs<Edit, uint16_t>(w, bytes);
    case BlockType::Q4_0:
      return EditAs<Edit, BlockQ4_0>(w, bytes);
    case BlockType::Q5_0:
      return EditAs<Edit, BlockQ5_0>(w, bytes);
    case BlockType::Q8_0:
      return EditAs<Edit, BlockQ8_0>(w, bytes);
    case BlockType::Q4_K:
      return EditAs<Edit, BlockQ4_K>(w, bytes);
    case BlockType::Q5_K:
      return EditAs<Edit, BlockQ5_K>(w, bytes);
    case BlockType::Q6_K:
      return EditAs<Edit, BlockQ6_K>(w, bytes);
  }
  return false;
}

/// Runs the row on weights rewritten by rewrite(view, bytes), which says whether it changed any.
template <class A, class Rewrite>
bool WithRewrittenWeights(const A& args, const Inner& inner, Rewrite rewrite) {
  A changed = args;
  std::deque<std::vector<uint8_t>> copies;
  bool any = false;
  for (WeightView* w : WeightsOf(changed)) {
    std::vector<uint8_t>& bytes = copies.emplace_back(w->data, w->data + w->bytes());
    any |= rewrite(*w, bytes) && std::memcmp(bytes.data(), w->data, bytes.size()) != 0;
    w->data = bytes.data();
    if (w->rows8) w->rows8 = copies.emplace_back(RepackedRows8(*w)).data();
  }
  if (any) inner(changed);
  return any;
}

template <class Edit>
struct EditBlocks {
  template <HasWeights A>
  bool operator()(const A& args, const Inner& inner) const {
    return WithRewrittenWeights(args, inner, [](const WeightView& w, std::vector<uint8_t>& bytes) {
      return EditWeights<Edit>(w, bytes);
    });
  }
};

template <class Block>
concept Nibbles = requires(Block b) {
  b.qs[0];
}
&&!std::same_as<Block, BlockQ8_0>;
/// Q4_K and Q5_K: six-bit scales and minimums.
template <class Block>
concept SixBit = requires(Block b) {
  b.dmin;
};

struct SixBitPair {
  uint8_t scale, min;
};
/// Sub-block s; its layout is described at BlockQ4_K.
inline SixBitPair GetSixBits(const uint8_t* p, size_t s) {
  if (s < 4) return {static_cast<uint8_t>(p[s] & 63), static_cast<uint8_t>(p[s + 4] & 63)};
  return {static_cast<uint8_t>((p[s + 4] & 15) | (p[s - 4] >> 6) << 4),
          static_cast<uint8_t>(p[s + 4] >> 4 | (p[s] >> 6) << 4)};
}
inline void PutSixBits(uint8_t* p, const SixBitPair (&pairs)[8]) {
  for (size_t s = 0; s < 4; ++s) {
    const SixBitPair low = pairs[s], high = pairs[s + 4];
    p[s] = static_cast<uint8_t>(low.scale | (high.scale >> 4) << 6);
    p[s + 4] = static_cast<uint8_t>(low.min | (high.min >> 4) << 6);
    p[s + 8] = static_cast<uint8_t>((high.scale & 15) | (high.min & 15) << 4);
  }
}
/// pair(original pairs, s) for every sub-block.
template <class F>
void EditSixBits(uint8_t* packed, F pair) {
  SixBitPair before[8], after[8];
  for (size_t s = 0; s < 8; ++s) before[s] = GetSixBits(packed, s);
  for (size_t s = 0; s < 8; ++s) after[s] = pair(before, s);
  PutSixBits(packed, after);
}

struct NibbleOrder {
  template <Nibbles B>
  void operator()(B& b, BlockPlace) const {
    for (uint8_t& q : b.qs) q = static_cast<uint8_t>(q << 4 | q >> 4);
  }
  void operator()(BlockQ6_K& b, BlockPlace) const {
    for (uint8_t& q : b.ql) q = static_cast<uint8_t>(q << 4 | q >> 4);
  }
};
struct MinDropped {
  void operator()(SixBit auto& b, BlockPlace) const { b.dmin = 0; }
};
struct MinAdded {
  void operator()(SixBit auto& b, BlockPlace) const { b.dmin ^= 0x8000; }
};
struct DDminSwapped {
  void operator()(SixBit auto& b, BlockPlace) const { std::swap(b.d, b.dmin); }
};
struct ScaleOfNext {
  void operator()(SixBit auto& b, BlockPlace) const {
    EditSixBits(b.scales, [](const SixBitPair* p, size_t s) {
      return SixBitPair{p[(s + 1) % 8].scale, p[s].min};
    });
  }
  void operator()(BlockQ6_K& b, BlockPlace) const {
    std::rotate(b.scales, b.scales + 1, b.scales + 16);
  }
};
struct MinOfNext {
  void operator()(SixBit auto& b, BlockPlace) const {
    EditSixBits(b.scales, [](const SixBitPair* p, size_t s) {
      return SixBitPair{p[s].scale, p[(s + 1) % 8].min};
    });
  }
};
struct HighBitsLost {
  void operator()(SixBit auto& b, BlockPlace) const {
    for (size_t i = 0; i < 8; ++i) b.scales[i] &= 63;
  }
};
struct ScaleMinNibbles {
  void operator()(SixBit auto& b, BlockPlace) const {
    for (size_t i = 8; i < 12; ++i)
      b.scales[i] = static_cast<uint8_t>(b.scales[i] << 4 | b.scales[i] >> 4);
  }
};
struct BranchMissing {
  void operator()(SixBit auto& b, BlockPlace) const {
    uint8_t packed[12];
    std::memcpy(packed, b.scales, sizeof packed);
    EditSixBits(b.scales, [&](const SixBitPair* p, size_t s) {
      if (s < 4) return p[s];
      return SixBitPair{static_cast<uint8_t>(packed[s] & 63),
                        static_cast<uint8_t>(packed[s + 4] & 63)};
    });
  }
};
struct SecondHalfRepeats {
  void operator()(SixBit auto& b, BlockPlace) const { std::memcpy(b.qs + 64, b.qs, 64); }
  void operator()(BlockQ6_K& b, BlockPlace) const { std::memcpy(b.ql + 64, b.ql, 64); }
};
struct Q5HighBitLost {
  void operator()(BlockQ5_0& b, BlockPlace) const { std::memset(b.qh, 0, sizeof b.qh); }
  void operator()(BlockQ5_K& b, BlockPlace) const { std::memset(b.qh, 0, sizeof b.qh); }
};
struct Q6HighBitsLost {
  void operator()(BlockQ6_K& b, BlockPlace) const { std::memset(b.qh, 0, sizeof b.qh); }
};
struct Q6HighBitsShifted {
  void operator()(BlockQ6_K& b, BlockPlace) const {
    for (uint8_t& q : b.qh) q = std::rotr(q, 2);
  }
};
/// q + 1 within the six bits: what a subtraction of 31 makes of all but the largest quant.
struct Q6Offset {
  void operator()(BlockQ6_K& b, BlockPlace) const {
    for (size_t i = 0; i < 256; ++i) {
      const size_t half = i / 128, k = i % 128 / 32, l = i % 32;
      uint8_t& low = b.ql[64 * half + 32 * (k % 2) + l];
      uint8_t& high = b.qh[32 * half + l];
      const size_t low_shift = 4 * (k / 2), high_shift = 2 * k;
      const int q = (low >> low_shift & 15) | (high >> high_shift & 3) << 4;
      const int next = std::min(q + 1, 63);
      low = static_cast<uint8_t>((low & ~(15 << low_shift)) | (next & 15) << low_shift);
      high = static_cast<uint8_t>((high & ~(3 << high_shift)) | (next >> 4) << high_shift);
    }
  }
};
struct Q6ScaleSign {
  void operator()(BlockQ6_K& b, BlockPlace) const {
    for (int8_t& s : b.scales) s = static_cast<int8_t>(s < 0 && s != -128 ? -s : s);
  }
};
struct Q6ScalePer32 {
  void operator()(BlockQ6_K& b, BlockPlace) const {
    for (size_t i = 0; i < 16; i += 2) b.scales[i + 1] = b.scales[i];
  }
};

/// Blocks with an f16 scale.
template <class Block>
concept Scaled = requires(Block b) {
  b.d;
};

struct ScaleOneUlp {
  void operator()(Scaled auto& b, BlockPlace p) const {
    const bool has_next = (b.d & 0x7fff) < 0x7bff;  // 65504 has none
    if (p.row == p.rows / 2 && has_next) ++b.d;
  }
};
struct SubnormalScaleFlushed {
  void operator()(Scaled auto& b, BlockPlace) const {
    if ((b.d & 0x7c00) == 0) b.d = 0;
  }
};
struct LastBlockDropped {
  template <class B>
  void operator()(B& b, BlockPlace p) const {
    if (p.block + 1 == p.blocks) b = B{};
  }
};
struct OneSubBlockZero {
  void operator()(SixBit auto& b, BlockPlace p) const {
    if (p.row != p.rows / 2 || p.block != p.blocks / 2) return;
    EditSixBits(b.scales, [](const SixBitPair* pairs, size_t s) {
      return s == 5 ? SixBitPair{0, 0} : pairs[s];
    });
  }
  void operator()(BlockQ6_K& b, BlockPlace p) const {
    if (p.row == p.rows / 2 && p.block == p.blocks / 2) b.scales[5] = 0;
  }
};

struct TransposedBlocks {
  template <HasWeights A>
  bool operator()(const A& args, const Inner& inner) const {
    return WithRewrittenWeights(args, inner, [](const WeightView& w, std::vector<uint8_t>& bytes) {
      const size_t size = InfoOf(w.type).bytes, blocks = w.row_bytes() / size;
      for (size_t r = 0; r < w.rows; ++r)
        for (size_t b = 0; b < blocks; ++b)
          std::memcpy(&bytes[(r * blocks + b) * size], w.data + (b * w.rows + r) * size, size);
      return true;
    });
  }
};
struct RowsRotated {
  template <HasWeights A>
  bool operator()(const A& args, const Inner& inner) const {
    return WithRewrittenWeights(args, inner, [](const WeightView& w, std::vector<uint8_t>& bytes) {
      std::rotate(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(w.row_bytes()),
                  bytes.end());
      return true;
    });
  }
};

struct ReadsPastEnd {
  template <HasWeights A>
  bool operator()(const A& args, const Inner& inner) const {
    A changed = args;
    for (WeightView* w : WeightsOf(changed)) {
      w->data += InfoOf(w->type).bytes;
      if (w->rows8) w->rows8 += InfoOf(w->type).bytes;  // no further: see Binding's padding
    }
    inner(changed);
    return true;
  }
  /// Ops without weights: the first input, one value late.
  template <class T>
  bool operator()(const RmsNormArgs<T>& a, const Inner& inner) const {
    return Late(a, inner, &RmsNormArgs<T>::x);
  }
  template <class T>
  bool operator()(const SiluArgs<T>& a, const Inner& inner) const {
    return Late(a, inner, &SiluArgs<T>::x);
  }
  template <class T>
  bool operator()(const SwigluArgs<T>& a, const Inner& inner) const {
    return Late(a, inner, &SwigluArgs<T>::up);
  }
  template <class T>
  bool operator()(const ResidualAddArgs<T>& a, const Inner& inner) const {
    return Late(a, inner, &ResidualAddArgs<T>::b);
  }
  template <class T>
  bool operator()(const RopeArgs<T>& a, const Inner& inner) const {
    return Late(a, inner, &RopeArgs<T>::x);
  }
  template <class T>
  bool operator()(const QuantizeArgs<T>& a, const Inner& inner) const {
    return Late(a, inner, &QuantizeArgs<T>::x);
  }
  template <class T>
  bool operator()(const GqaAttentionArgs<T>& a, const Inner& inner) const {
    return Late(a, inner, &GqaAttentionArgs<T>::q);
  }

 private:
  template <class A, class T>
  static bool Late(const A& args, const Inner& inner, const T* A::*input) {
    A changed = args;
    changed.*input += 1;
    inner(changed);
    return true;
  }
};

}  // namespace lab
