// One block of weights times activations in integers, one value at a time; part of int_rows-inl.h.
// For the target without vectors alone.

#if defined(LAB_KERNELS_INT_BLOCKS_SCALAR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAB_KERNELS_INT_BLOCKS_SCALAR_INL_H_
#undef LAB_KERNELS_INT_BLOCKS_SCALAR_INL_H_
#else
#define LAB_KERNELS_INT_BLOCKS_SCALAR_INL_H_
#endif

#if HWY_TARGET == HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace lab::HWY_NAMESPACE {
namespace {

using BlockSum = float;
inline float ZeroSum() {
  return 0;
}
inline float SumOf(float sum) {
  return sum;
}

/// A block as integers: weight i = d scales[i / 16] q[i] - dmin mins[i / 32].
template <class Block>
struct Integers {
  int q[kValues<Block>];
  int scales[kValues<Block> / 16];
  int mins[8] = {};
  float d, dmin = 0;

  explicit Integers(const Block& b) : d(HalfValue(b.d)) {
    for (int& scale : scales) scale = 1;
    Unpack(b);
  }

 private:
  void Unpack(const BlockQ4_0& b) {
    for (int i = 0; i < 32; ++i) q[i] = (b.qs[i % 16] >> (i / 16 * 4) & 15) - 8;
  }
  void Unpack(const BlockQ5_0& b) {
    for (int i = 0; i < 32; ++i)
      q[i] = ((b.qs[i % 16] >> (i / 16 * 4) & 15) | (b.qh[i / 8] >> (i % 8) & 1) << 4) - 16;
  }
  void Unpack(const BlockQ8_0& b) {
    for (int i = 0; i < 32; ++i) q[i] = b.qs[i];
  }
  void Unpack(const BlockQ4_K& b) {
    UnpackScales(b);
    for (int i = 0; i < 256; ++i) q[i] = Nibble(b.qs, i);
  }
  void Unpack(const BlockQ5_K& b) {
    UnpackScales(b);
    for (int i = 0; i < 256; ++i) q[i] = Nibble(b.qs, i) | (b.qh[i % 32] >> (i / 32) & 1) << 4;
  }
  void Unpack(const BlockQ6_K& b) {
    for (int g = 0; g < 16; ++g) scales[g] = b.scales[g];
    for (int i = 0; i < 256; ++i) {
      const int half = i / 128, k = i / 32 % 4;
      const int low = b.ql[half * 64 + k % 2 * 32 + i % 32] >> (k / 2 * 4) & 15;
      q[i] = (low | (b.qh[half * 32 + i % 32] >> (2 * k) & 3) << 4) - 32;
    }
  }
  static int Nibble(const uint8_t* qs, int i) {
    return qs[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
  }
  template <class KBlock>
  void UnpackScales(const KBlock& b) {
    const SixBits six = UnpackSixBits(b.scales);
    for (int g = 0; g < 16; ++g) scales[g] = six.scales >> (g / 2 * 8) & 63;
    for (int s = 0; s < 8; ++s) mins[s] = six.mins >> (s * 8) & 63;
    dmin = HalfValue(b.dmin);
  }
};

template <class Block, class Acts>
float BlockTimesToken(const Integers<Block>& w, const Acts& x, size_t token, size_t block) {
  const size_t at = token * x.n + block * kValues<Block>;
  int64_t dot = 0, mins = 0;
  for (size_t g = 0; g < kValues<Block> / 16; ++g) {
    int64_t group = 0, sum = 0;
    for (size_t i = g * 16; i < g * 16 + 16; ++i) {
      const int hi = x.planes[0][at + i];
      const int q = Acts::kPlanes == 2 ? 256 * hi + x.planes[1][at + i] : hi;
      group += w.q[i] * q;
      sum += q;
    }
    dot += w.scales[g] * group;
    mins += w.mins[g / 2] * sum;
  }
  return (w.d * static_cast<float>(dot) - w.dmin * static_cast<float>(mins)) *
         x.scale[at / kValues<Block>];
}

template <class Block, size_t kRows, size_t kTokens, class Acts>
void AddBlock(const Block* const (&w)[kRows], const Acts& x, size_t t0, size_t block,
              float (&sums)[kRows][kTokens]) {
  for (size_t r = 0; r < kRows; ++r) {
    const Integers<Block> integers(*w[r]);
    for (size_t t = 0; t < kTokens; ++t) sums[r][t] += BlockTimesToken(integers, x, t0 + t, block);
  }
}

}  // namespace
}  // namespace lab::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET == HWY_SCALAR
#endif
