#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lab {

/// Whether the bytes begin as a gzip file does.
bool IsGzip(std::span<const uint8_t> bytes);

/// What is packed in a gzip file, all its members one after the other. Throws Error that names
/// `path` where the file is damaged or cut off, holds nothing, or unpacks to more than `most`
/// bytes.
std::vector<uint8_t> Unzip(const std::string& path, std::span<const uint8_t> bytes, size_t most);

}  // namespace lab
