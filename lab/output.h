#pragma once
// Everything lab writes: checked, whole or not at all.
#include <initializer_list>
#include <string>
#include <string_view>

namespace lab {

/// Writes to standard output. Throws Error (exit 141, silent) when the reader has gone, exit 2 when
/// the write fails otherwise.
void PrintOut(std::string_view text);

/// Writes to standard error. A log that cannot be written changes no result and no exit code.
void PrintErr(std::string_view text);

/// A file under construction. A regular or absent target is written to a temporary in the same
/// folder (behind a symlink: in its target's), synced and renamed by Commit; a device, pipe or "-"
/// is written directly. Without Commit, and on SIGINT, the temporary goes and the target stays.
class OutputFile {
 public:
  /// Throws Error (exit 2) at once when the target cannot be written.
  explicit OutputFile(const std::string& path);
  ~OutputFile();
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;

  void Write(std::string_view bytes);
  void Commit();
  const std::string& path() const { return path_; }

 private:
  void CreateTemporary(unsigned mode);
  void Discard();
  void Flush();
  [[noreturn]] void Fail(const char* what, int error) const;

  std::string path_;       // as the user named it
  std::string target_;     // behind symlinks
  std::string temporary_;  // empty: written directly
  std::string buffer_;
  int fd_ = -1;
  int slot_ = -1;  // in the table of temporaries that a signal removes
};

/// Ends the process where nothing can be thrown, in a signal handler or a new handler: removes the
/// temporaries, writes "lab: ", the parts and a line end to standard error. Allocates nothing.
[[noreturn]] void QuitNow(int code, std::initializer_list<std::string_view> parts);

/// Keeps the numbers of standard streams that the caller has closed from being given to the next
/// file that opens; using such a stream stays an error.
void KeepStandardStreams();

/// On SIGINT, SIGTERM and SIGHUP removes the temporaries and ends the process (130 for SIGINT);
/// one that the caller has ignored (nohup) stays ignored. SIGPIPE and SIGXFSZ (ulimit -f) are
/// ignored: writes report them.
void InstallSignalHandlers();

}  // namespace lab
