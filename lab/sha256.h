#pragma once
#include <cstdint>
#include <span>
#include <string>

namespace lab {

/// Lower-case hexadecimal sha256.
std::string Sha256(std::span<const uint8_t> bytes);

/// The sha256 of a mapped file, remembered in CacheDir() by path, size, modification time and
/// inode; about a second for a gigabyte the first time.
std::string Sha256OfFile(const std::string& path, std::span<const uint8_t> bytes);

}  // namespace lab
