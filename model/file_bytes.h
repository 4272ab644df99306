#pragma once
#include <sys/stat.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lab {

/// The bytes of a file, mapped read-only, or bytes made in memory under a name of their own.
class FileBytes {
 public:
  /// Maps `path`. Throws Error when it is missing, unreadable, not a regular file, or empty.
  static FileBytes Map(const std::string& path);
  static FileBytes FromMemory(std::string name, std::vector<uint8_t> bytes);
  /// Bytes that somebody else owns and keeps.
  static FileBytes Borrow(std::string name, std::span<const uint8_t> bytes);

  FileBytes(FileBytes&& other) noexcept;
  FileBytes& operator=(FileBytes&&) = delete;
  ~FileBytes();

  /// Takes the whole pages among these bytes of a mapped file out of this process's memory; they
  /// come back, from the page cache, when somebody reads them.
  void LetGo(std::span<const uint8_t> part) const;

  std::span<const uint8_t> bytes() const { return bytes_; }
  /// The path, or the name of bytes that are in no file.
  const std::string& name() const { return name_; }
  bool is_file() const { return mapping_ != nullptr; }
  /// What the system said of a mapped file when it was mapped: another may have its path by now.
  const struct stat& status() const;

 private:
  FileBytes() = default;
  std::string name_;
  std::vector<uint8_t> owned_;
  std::span<const uint8_t> bytes_;
  struct Mapping* mapping_ = nullptr;  // of a mapped file
};

/// From here on, a mapped file that becomes shorter while somebody reads it ends the process with
/// one line and exit 2 instead of SIGBUS.
void InstallMappingHandler();

}  // namespace lab
