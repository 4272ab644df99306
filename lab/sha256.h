#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "model/file_bytes.h"

namespace lab {

/// Lower-case hexadecimal sha256.
std::string Sha256(std::span<const uint8_t> bytes);

/// The sha256 of a mapped file, remembered in CacheDir() by path, size, inode and the times of the
/// last modification and change (a clock may be wrong, and a copy keep the first, as archives do);
/// about a second for a gigabyte the first time. Of bytes that are in no file: "".
std::string Sha256OfFile(const FileBytes& file);

}  // namespace lab
