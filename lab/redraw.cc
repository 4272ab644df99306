#include "lab/redraw.h"

#include <fmt/format.h>

#include <cstring>
#include <memory>

#include "lab/random.h"

namespace lab {
namespace {

// Of +-[0.5, 1.5).
float Factor(Random& random) {
  const float u = random.Signed();
  return u < 0 ? u - 0.5f : u + 0.5f;
}

void ShuffleBlocks(Case& c, WeightView& w, Random& random) {
  if (!w.data) return;
  auto bytes = std::make_shared<std::vector<uint8_t>>(w.data, w.data + w.bytes());
  const size_t size = InfoOf(w.type).bytes;
  uint8_t block[256];
  for (size_t i = bytes->size() / size; i-- > 1;) {
    uint8_t *a = &(*bytes)[i * size],
            *b = &(*bytes)[random.Below(static_cast<uint32_t>(i + 1)) * size];
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
  c.exact = false;  // sums of these are rounded
  uint64_t mixed = seed;
  for (const char letter : c.name) mixed = mixed * 31 + static_cast<uint8_t>(letter);
  Random random(mixed);
  for (std::vector<float>* values : {&c.x, &c.x2, &c.k, &c.v, &c.vector})
    for (float& x : *values) x *= Factor(random);
  for (WeightView* w : {&c.w, &c.w_up}) ShuffleBlocks(c, *w, random);
  c.name = fmt::format("{}#{}", c.name, seed);
  return c;
}

}  // namespace lab
