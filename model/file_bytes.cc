#include "model/file_bytes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <utility>

#include "lab/error.h"
#include "lab/output.h"

namespace lab {

// One mapped file. They make a list that a signal handler can walk at any time: nothing is ever
// taken out of it, and a process maps dozens of files.
struct Mapping {
  std::atomic<uintptr_t> begin;  // 0: no longer mapped
  std::string path;
  struct stat status;
  size_t size;
  Mapping* next;
};

namespace {

std::atomic<Mapping*> mappings{nullptr};

Mapping* Remember(const void* begin, const std::string& path, const struct stat& status) {
  auto* m = new Mapping{reinterpret_cast<uintptr_t>(begin), path, status,
                        static_cast<size_t>(status.st_size), mappings.load()};
  while (!mappings.compare_exchange_weak(m->next, m)) {
  }
  return m;
}

extern "C" void ExplainBusError(int signal, siginfo_t* info, void*) {
  const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
  for (const Mapping* m = mappings; m; m = m->next) {
    const uintptr_t begin = m->begin;
    if (begin && at - begin < m->size)
      QuitNow(kUsage, {m->path,
                       ": cannot read: the file has become shorter since it was opened, "
                       "or its disk has failed"});
  }
  std::signal(signal, SIG_DFL);  // none of ours: the same access again ends the process
}

}  // namespace

void InstallMappingHandler() {
  struct sigaction action = {};
  action.sa_sigaction = ExplainBusError;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

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
  file.mapping_ = Remember(data, path, st);
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
      mapping_(std::exchange(other.mapping_, nullptr)) {}

const struct stat& FileBytes::status() const {
  return mapping_->status;
}

void FileBytes::LetGo(std::span<const uint8_t> part) const {
  if (!is_file()) return;
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(part.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(part.data() + part.size()) / page * page;
  // A wish: pages that stay cost memory, nothing else.
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

FileBytes::~FileBytes() {
  if (!is_file()) return;
  mapping_->begin = 0;
  munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
}

}  // namespace lab
