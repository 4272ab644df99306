#include "lab/output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <random>
#include <utility>

#include "lab/error.h"

namespace lab {
namespace {

// Paths that a signal handler may unlink: fixed memory, no locks.
struct TemporarySlot {
  std::atomic<bool> taken{false}, ready{false};
  char path[PATH_MAX];
};
std::array<TemporarySlot, 16> temporaries;

int Remember(const std::string& path) {
  if (path.size() >= PATH_MAX) return -1;
  for (size_t i = 0; i < temporaries.size(); ++i) {
    bool free = false;
    if (!temporaries[i].taken.compare_exchange_strong(free, true)) continue;
    std::memcpy(temporaries[i].path, path.c_str(), path.size() + 1);
    temporaries[i].ready = true;
    return static_cast<int>(i);
  }
  return -1;
}

void Forget(int slot) {
  if (slot < 0) return;
  temporaries[static_cast<size_t>(slot)].ready = false;
  temporaries[static_cast<size_t>(slot)].taken = false;
}

void RemoveTemporaries() {
  for (TemporarySlot& slot : temporaries)
    if (slot.ready) unlink(slot.path);
}

extern "C" void RemoveTemporariesAndExit(int signal) {
  RemoveTemporaries();
  _exit(128 + signal);
}

// 0 or the errno of the first failed write.
int WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return 0;
}

[[noreturn]] void ThrowWriteError(std::string_view where, const char* what, int error) {
  if (error == EPIPE) throw Error(kClosedPipe, "");
  lab::Fail("{}: cannot {}: {}", where, what, std::strerror(error));
}

// Where a path leads through symlinks, the last of which may dangle. A device or pipe keeps its
// name: what /dev/fd/63 leads to has none in the file system.
std::string ResolveLinks(std::string path) {
  struct stat st;
  if (stat(path.c_str(), &st) == 0 && !S_ISREG(st.st_mode)) return path;
  for (int hops = 0; hops < 40; ++hops) {
    char link[PATH_MAX];
    const ssize_t n = readlink(path.c_str(), link, sizeof link);
    if (n < 0) return path;
    const std::string to(link, static_cast<size_t>(n));
    const size_t slash = path.rfind('/');
    path = to.starts_with('/') || slash == std::string::npos ? to : path.substr(0, slash + 1) + to;
  }
  return path;
}

// The target with six random characters and .tmp behind it, in the same folder.
std::string RandomName(const std::string& target) {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789";
  std::random_device random;
  std::string name = target + ".";
  for (int i = 0; i < 6; ++i) name += kLetters[random() % kLetters.size()];
  return name + ".tmp";
}

}  // namespace

void PrintOut(std::string_view text) {
  if (const int error = WriteAll(STDOUT_FILENO, text))
    ThrowWriteError("standard output", "write", error);
}

void PrintErr(std::string_view text) {
  WriteAll(STDERR_FILENO, text);
}

void QuitNow(int code, std::initializer_list<std::string_view> parts) {
  // Threads can get here at the same moment, all by one cause: the first one reports it.
  static std::atomic_flag ending = ATOMIC_FLAG_INIT;
  while (ending.test_and_set()) pause();
  RemoveTemporaries();
  PrintErr("lab: ");
  for (const std::string_view part : parts) PrintErr(part);
  PrintErr("\n");
  _exit(code);
}

void KeepStandardStreams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (fcntl(fd, F_GETFD) < 0) open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

void InstallSignalHandlers() {
  struct sigaction action = {};
  action.sa_handler = RemoveTemporariesAndExit;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction before = {};
    sigaction(signal, nullptr, &before);
    if (before.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
  }
  action.sa_handler = SIG_IGN;
  for (const int signal : {SIGPIPE, SIGXFSZ}) sigaction(signal, &action, nullptr);
}

OutputFile::OutputFile(const std::string& path) : path_(path), target_(ResolveLinks(path)) {
  if (path.empty()) lab::Fail("an output path is empty");
  if (path == "-") {
    fd_ = dup(STDOUT_FILENO);
    if (fd_ < 0) Fail("open", errno);
    return;
  }
  struct stat st;
  const bool exists = stat(target_.c_str(), &st) == 0;
  if (!exists && errno != ENOENT) Fail("open", errno);
  if (exists && S_ISDIR(st.st_mode)) Fail("write", EISDIR);
  if (exists && !S_ISREG(st.st_mode)) {
    fd_ = open(target_.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) Fail("open", errno);
    return;
  }
  if (exists && access(target_.c_str(), W_OK) != 0) Fail("write", errno);
  // 0666 less the umask for a new file; an old one lends its mode.
  CreateTemporary(exists ? 0600 : 0666);
  if (exists && fchmod(fd_, st.st_mode & 0777) != 0) {
    const int error = errno;
    Discard();
    Fail("set the mode", error);
  }
}

// The name is remembered before the file exists, because a signal may come at any time.
void OutputFile::CreateTemporary(unsigned mode) {
  for (;;) {
    temporary_ = RandomName(target_);
    slot_ = Remember(temporary_);
    fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd_ >= 0) return;
    const int error = errno;
    temporary_.clear();  // not ours
    Forget(std::exchange(slot_, -1));
    if (error != EEXIST) Fail("create a file in its folder", error);
  }
}

void OutputFile::Discard() {
  if (fd_ >= 0) close(std::exchange(fd_, -1));
  if (!temporary_.empty()) unlink(temporary_.c_str());
  Forget(std::exchange(slot_, -1));
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      target_(std::move(other.target_)),
      temporary_(std::exchange(other.temporary_, {})),
      buffer_(std::exchange(other.buffer_, {})),
      fd_(std::exchange(other.fd_, -1)),
      slot_(std::exchange(other.slot_, -1)) {}

OutputFile::~OutputFile() {
  Discard();
}

void OutputFile::Write(std::string_view bytes) {
  constexpr size_t kBuffer = 1 << 16;
  buffer_ += bytes;
  if (buffer_.size() >= kBuffer) Flush();
}

void OutputFile::Flush() {
  if (const int error = WriteAll(fd_, buffer_)) Fail("write", error);
  buffer_.clear();
}

void OutputFile::Commit() {
  Flush();
  if (!temporary_.empty() && fsync(fd_) != 0) Fail("write", errno);
  if (close(std::exchange(fd_, -1)) != 0) Fail("write", errno);
  if (temporary_.empty()) return;
  if (rename(temporary_.c_str(), target_.c_str()) != 0) Fail("rename", errno);
  temporary_.clear();
  Forget(std::exchange(slot_, -1));
}

void OutputFile::Fail(const char* what, int error) const {
  ThrowWriteError(path_, what, error);
}

}  // namespace lab
