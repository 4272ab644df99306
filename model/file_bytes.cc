#include "model/file_bytes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "lab/error.h"

namespace lab {

FileBytes FileBytes::Map(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) Fail("{}: cannot open: {}", path, std::strerror(errno));
  struct stat st = {};
  void* data = MAP_FAILED;
  int error = 0;
  if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
    data = mmap(nullptr, static_cast<size_t>(st.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
    error = errno;
  }
  close(fd);
  if (!S_ISREG(st.st_mode)) Fail("{}: is not a regular file", path);
  if (st.st_size == 0) Fail("{}: the file is empty", path);
  if (data == MAP_FAILED)
    Fail("{}: cannot map {} bytes: {}", path, st.st_size, std::strerror(error));

  FileBytes file;
  file.name_ = path;
  file.bytes_ = {static_cast<const uint8_t*>(data), static_cast<size_t>(st.st_size)};
  file.mapped_ = true;
  return file;
}

FileBytes FileBytes::FromMemory(std::string name, std::vector<uint8_t> bytes) {
  FileBytes file;
  file.name_ = std::move(name);
  file.owned_ = std::move(bytes);
  file.bytes_ = file.owned_;
  return file;
}

FileBytes FileBytes::Borrow(std::string name, std::span<const uint8_t> bytes) {
  FileBytes file;
  file.name_ = std::move(name);
  file.bytes_ = bytes;
  return file;
}

FileBytes::FileBytes(FileBytes&& other) noexcept
    : name_(std::move(other.name_)),
      owned_(std::move(other.owned_)),
      bytes_(std::exchange(other.bytes_, {})),
      mapped_(std::exchange(other.mapped_, false)) {}

void FileBytes::LetGo(std::span<const uint8_t> part) const {
  if (!mapped_) return;
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(part.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(part.data() + part.size()) / page * page;
  // A wish: pages that stay cost memory, nothing else.
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

FileBytes::~FileBytes() {
  if (mapped_) munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
}

}  // namespace lab
