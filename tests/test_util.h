#pragma once
// Files that tests make, and the tiny model as bytes to patch.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/synth.h"

namespace lab {

/// A build in which everything takes a multiple of the time, and asks for terabytes of addresses.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

/// A folder that goes with everything in it.
class TempDir {
 public:
  TempDir() {
    path_ = testing::TempDir() + "lab.XXXXXX";
    if (!mkdtemp(path_.data())) ADD_FAILURE() << "cannot make " << path_;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }
  /// What is in it, sorted.
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_))
      names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  std::string path_;
};

inline std::string ReadBytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::string_view AsText(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Writes a file and returns its path.
inline std::string WriteBytes(const std::string& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  EXPECT_TRUE(out.flush()) << path;
  return path;
}

/// The built-in model, made once.
inline const std::vector<uint8_t>& TinyGguf() {
  static const std::vector<uint8_t> kTiny = MakeSynthGguf("tiny");
  return kTiny;
}

/// Where in a GGUF file the value of a key begins, behind the key and the value's type.
inline size_t OffsetOfValue(std::span<const uint8_t> gguf, std::string_view key) {
  const uint64_t size = key.size();
  std::string needle(reinterpret_cast<const char*>(&size), sizeof size);
  needle += key;
  const size_t at = AsText(gguf).find(needle);
  EXPECT_NE(at, std::string_view::npos) << key;
  return at + needle.size() + sizeof(uint32_t);
}

}  // namespace lab
