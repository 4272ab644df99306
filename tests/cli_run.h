#pragma once
// Runs the binary as a user would, and what is asked of such a run.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>
#include <thread>

#include "lab/safetensors.h"
#include "lab/sha256.h"
#include "lab/taps.h"
#include "model/gguf.h"
#include "tests/paths.h"
#include "tests/test_util.h"

extern char** environ;

namespace lab::cli_test {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Strings = std::vector<std::string>;

inline Strings Lines(const std::string& text) {
  Strings lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

struct Result {
  int code = -1;  // or minus the signal that ended it
  std::string out, err;
};

// One run of the lab. Unless told otherwise it sees no model, no cache and an empty standard input.
class Process {
 public:
  explicit Process(Strings args) : args_(std::move(args)) {
    args_.insert(args_.begin(), kLabBinary);
    env_ = {{"HOME", dir_ / "home"}, {"XDG_CACHE_HOME", dir_ / "cache"}, {"LAB_MODEL", ""}};
    posix_spawn_file_actions_init(&files_);
    Connect(STDIN_FILENO, "/dev/null", O_RDONLY);
    Connect(STDOUT_FILENO, dir_ / "out", O_WRONLY | O_CREAT);
    Connect(STDERR_FILENO, dir_ / "err", O_WRONLY | O_CREAT);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    if (pid_ > 0) Finish(std::chrono::seconds(0));
    posix_spawn_file_actions_destroy(&files_);
  }

  Process& Env(const std::string& name, const std::string& value) {
    env_[name] = value;
    return *this;
  }
  Process& Connect(int fd, const std::string& path, int flags) {
    posix_spawn_file_actions_addopen(&files_, fd, path.c_str(), flags, 0600);
    return *this;
  }
  Process& Connect(int fd, int to) {
    posix_spawn_file_actions_adddup2(&files_, to, fd);
    return *this;
  }
  Process& Close(int fd) {
    posix_spawn_file_actions_addclose(&files_, fd);
    return *this;
  }
  Process& Input(const std::string& text) {
    return Connect(STDIN_FILENO, WriteBytes(dir_ / "in", text), O_RDONLY);
  }
  // Runs in a folder, without a shell: dash handles SIGINT itself until it becomes the lab.
  Process& In(const std::string& folder) {
    posix_spawn_file_actions_addchdir_np(&files_, folder.c_str());
    return *this;
  }
  // Runs in a shell that does something first, such as "ulimit -f 8"; if that fails, exit 99.
  Process& After(const std::string& commands) {
    return Shell("{ " + commands + "; } || exit 99; exec \"$0\" \"$@\"");
  }
  // Runs a script instead, in which "$0" "$@" is the lab with these arguments.
  Process& Shell(const std::string& script) {
    args_.insert(args_.begin(), {"/bin/sh", "-c", script});
    return *this;
  }
  // As under nohup.
  Process& IgnoreHangup() {
    ignore_hangup_ = true;
    return *this;
  }

  void Start() {
    Strings env;
    for (char** e = environ; *e; ++e)
      if (!env_.contains(std::string_view(*e).substr(0, std::strcspn(*e, "=")))) env.push_back(*e);
    for (const auto& [name, value] : env_)
      if (!value.empty()) env.push_back(name + "=" + value);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t defaults;
    sigemptyset(&defaults);
    // A test run in the background of a script would hand an ignored SIGINT down.
    for (const int signal : {SIGINT, SIGTERM, SIGPIPE}) sigaddset(&defaults, signal);
    if (!ignore_hangup_) sigaddset(&defaults, SIGHUP);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    const auto before = std::signal(SIGHUP, ignore_hangup_ ? SIG_IGN : SIG_DFL);
    if (const int error = posix_spawn(&pid_, args_[0].c_str(), &files_, &attributes,
                                      Pointers(args_).data(), Pointers(env).data())) {
      ADD_FAILURE() << args_[0] << ": " << std::strerror(error);
      pid_ = -1;
    }
    std::signal(SIGHUP, before);
    posix_spawnattr_destroy(&attributes);
  }
  void Signal(int signal) {
    ASSERT_GT(pid_, 0) << "not running; kill would signal every process";
    kill(pid_, signal);
  }
  pid_t pid() const { return pid_; }

  // The limit is for a run that hangs, or computes before it looks at its flags.
  Result Finish(std::chrono::seconds limit = std::chrono::seconds(60)) {
    const auto end = std::chrono::steady_clock::now() + limit;
    int status = 0;
    while (pid_ > 0 && waitpid(pid_, &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() >= end) {
        ADD_FAILURE() << "still running after " << limit.count() << " s";
        kill(pid_, SIGKILL);
        waitpid(pid_, &status, 0);
        break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    pid_ = -1;
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), ReadIfThere("out"),
            ReadIfThere("err")};
  }
  Result operator()() {
    Start();
    return Finish();
  }
  std::string cache() const { return dir_ / "cache"; }

 private:
  static std::vector<char*> Pointers(Strings& strings) {
    std::vector<char*> pointers;
    for (std::string& s : strings) pointers.push_back(s.data());
    pointers.push_back(nullptr);
    return pointers;
  }
  std::string ReadIfThere(const char* name) const {
    return fs::exists(dir_ / name) ? ReadBytes(dir_ / name) : "";
  }

  TempDir dir_;
  Strings args_;
  std::map<std::string, std::string, std::less<>> env_;  // an empty value: unset
  posix_spawn_file_actions_t files_;
  bool ignore_hangup_ = false;
  pid_t pid_ = -1;
};

inline Result RunLab(const Strings& args) {
  return Process(args)();
}

inline Strings operator+(Strings a, const Strings& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// `lab forward` on tiny with two tokens: as little as there is.
inline const Strings kForward = {"forward", "--model", "tiny", "--backend", "ref"};
inline const Strings kShort = kForward + Strings{"--tokens", "1,2"};

inline std::string WriteTiny(const std::string& path) {
  return WriteBytes(path, AsText(TinyGguf()));
}

inline void ExpectHas(const std::string& text, const Strings& parts) {
  for (const std::string& part : parts)
    EXPECT_NE(text.find(part), std::string::npos) << "lacks: " << part << "\nin: " << text;
}

// Exit code, nothing on standard output, one line on standard error that says so.
inline void ExpectFails(const Result& r, int code, const Strings& said) {
  EXPECT_EQ(r.code, code);
  EXPECT_EQ(r.out, "");
  EXPECT_EQ(Lines(r.err).size(), 1u) << r.err;
  EXPECT_TRUE(r.err.starts_with("lab: ") && r.err.ends_with("\n")) << r.err;
  ExpectHas(r.err, said);
}

inline std::vector<Json> Records(const std::string& jsonl) {
  std::vector<Json> records;
  for (const std::string& line : Lines(jsonl)) {
    records.push_back(Json::parse(line, nullptr, false));
    EXPECT_TRUE(records.back().is_object()) << line;
  }
  return records;
}

inline std::vector<Json> OfKind(const std::vector<Json>& records, std::string_view kind) {
  std::vector<Json> found;
  for (const Json& r : records)
    if (r["kind"] == kind) found.push_back(r);
  return found;
}

inline Strings KeysOf(const Json& object) {
  Strings keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

// The last top record of a run with JSON lines on standard output.
inline Json TopOf(const Result& r) {
  EXPECT_EQ(r.code, 0) << r.err;
  const auto tops = OfKind(Records(r.out), "top");
  EXPECT_FALSE(tops.empty());
  return tops.empty() ? Json() : tops.back();
}

struct Case {
  Strings args;
  int code;
  Strings said;
};

inline void ExpectFails(std::span<const Case> cases) {
  for (const Case& c : cases) {
    std::string line;
    for (const std::string& arg : c.args) line.append(arg).append(" ");
    SCOPED_TRACE(line);
    ExpectFails(RunLab(c.args), c.code, c.said);
  }
}

// True when so many files are in the folder within the limit of a hang.
inline bool WaitForAFile(const TempDir& dir, size_t files) {
  for (int i = 0; i < 10000 && dir.Names().size() < files; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  return dir.Names().size() >= files;
}

// The verbs as the usage lists them.
inline Strings Verbs() {
  Strings verbs;
  for (const std::string& line : Lines(RunLab({"--help"}).out))
    if (line.starts_with("  ") && line[2] >= 'a' && line[2] <= 'z' && !line.starts_with("  lab "))
      verbs.push_back(line.substr(2, line.find(' ', 2) - 2));
  return verbs;
}

}  // namespace lab::cli_test
