#include "lab/stored_type.h"

#include <algorithm>
#include <cmath>

namespace lab {

size_t BytesOf(StoredType type) {
  return type == StoredType::f64 ? 8 : type == StoredType::f32 ? 4 : 2;
}

std::string_view NameOf(StoredType type) {
  constexpr std::string_view kNames[] = {"f64", "f32", "f16", "bf16"};
  return kNames[static_cast<size_t>(type)];
}

double HalfUlp(double x, StoredType type) {
  constexpr int kBits[] = {53, 24, 11, 8};               // of the significand
  constexpr int kSmallest[] = {-1021, -125, -13, -125};  // exponent (frexp's) of normal numbers
  const auto t = static_cast<size_t>(type);
  int exponent = kSmallest[t];
  if (x != 0) std::frexp(x, &exponent);
  return std::ldexp(0.5, std::max(exponent, kSmallest[t]) - kBits[t]);
}

StoredType Narrower(StoredType a, StoredType b) {
  return HalfUlp(1, a) > HalfUlp(1, b) ? a : b;
}

}  // namespace lab
