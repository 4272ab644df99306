#include "lab/redraw.h"

#include <fmt/format.h>

#include <cstring>
#include <memory>

namespace lab {
namespace {

// SplitMix64 (Steele, Lea & Flood 2014): the same numbers with every standard library.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  size_t Below(size_t n) { return static_cast<size_t>(Next() % n); }
  float Factor() {
    const float magnitude = 0.5f + static_cast<float>(Next() >> 40) * 0x1p-24f;
    return Next() >> 63 ? -magnitude : magnitude;
  }

 private:
  uint64_t state_;
};

void ShuffleBlocks(Case& c, WeightView& w, Random& random) {
  if (!w.data) return;
  auto bytes = std::make_shared<std::vector<uint8_t>>(w.data, w.data + w.bytes());
  const size_t size = InfoOf(w.type).bytes;
  uint8_t block[256];
  for (size_t i = bytes->size() / size; i-- > 1;) {
    uint8_t *a = &(*bytes)[i * size], *b = &(*bytes)[random.Below(i + 1) * size];
    std::memcpy(block, a, size);
    std::memmove(a, b, size);
    std::memcpy(b, block, size);
  }
  w.data = bytes->data();
  c.owned.push_back(std::move(bytes));
}

}  // namespace

Case Redrawn(const Case& original, uint64_t seed) {
  Case c = original;
  uint64_t mixed = seed;
  for (const char letter : c.name) mixed = mixed * 31 + static_cast<uint8_t>(letter);
  Random random(mixed);
  for (std::vector<float>* values : {&c.x, &c.x2, &c.k, &c.v, &c.vector})
    for (float& x : *values) x *= random.Factor();
  for (WeightView* w : {&c.w, &c.w_up}) ShuffleBlocks(c, *w, random);
  c.name = fmt::format("{}#{}", c.name, seed);
  return c;
}

}  // namespace lab
