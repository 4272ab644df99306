#pragma once
#include <cstddef>
#include <string_view>

namespace lab {

/// The type in which values were stored.
enum class StoredType { f64, f32, f16, bf16 };
size_t BytesOf(StoredType type);
std::string_view NameOf(StoredType type);
/// Half a unit in the last place of `type` at the magnitude of x: how far storing moved it at most.
double HalfUlp(double x, StoredType type);
/// The type with fewer bits behind the point.
StoredType Narrower(StoredType a, StoredType b);

}  // namespace lab
