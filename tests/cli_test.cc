// The command line: every check runs the binary as a user would.
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
#include "tests/test_util.h"

extern char** environ;

namespace lab {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Strings = std::vector<std::string>;

Strings Lines(const std::string& text) {
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
  explicit Process(const Strings& args) {
    args_ = {LAB_BINARY};
    args_.insert(args_.end(), args.begin(), args.end());
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
    if (const int error = posix_spawn(&pid_, LAB_BINARY, &files_, &attributes,
                                      Pointers(args_).data(), Pointers(env).data())) {
      ADD_FAILURE() << LAB_BINARY << ": " << std::strerror(error);
      pid_ = -1;
    }
    std::signal(SIGHUP, before);
    posix_spawnattr_destroy(&attributes);
  }
  void Signal(int signal) {
    ASSERT_GT(pid_, 0) << "not running; kill would signal every process";
    kill(pid_, signal);
  }

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

Result RunLab(const Strings& args) {
  return Process(args)();
}

Strings operator+(Strings a, const Strings& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// `lab forward` on tiny with two tokens: as little as there is.
const Strings kForward = {"forward", "--model", "tiny", "--backend", "ref"};
const Strings kShort = kForward + Strings{"--tokens", "1,2"};

std::string WriteTiny(const std::string& path) {
  return WriteBytes(path, AsText(TinyGguf()));
}

void ExpectHas(const std::string& text, const Strings& parts) {
  for (const std::string& part : parts)
    EXPECT_NE(text.find(part), std::string::npos) << "lacks: " << part << "\nin: " << text;
}

// Exit code, nothing on standard output, one line on standard error that says so.
void ExpectFails(const Result& r, int code, const Strings& said) {
  EXPECT_EQ(r.code, code);
  EXPECT_EQ(r.out, "");
  EXPECT_EQ(Lines(r.err).size(), 1u) << r.err;
  EXPECT_TRUE(r.err.starts_with("lab: ") && r.err.ends_with("\n")) << r.err;
  ExpectHas(r.err, said);
}

std::vector<Json> Records(const std::string& jsonl) {
  std::vector<Json> records;
  for (const std::string& line : Lines(jsonl)) {
    records.push_back(Json::parse(line, nullptr, false));
    EXPECT_TRUE(records.back().is_object()) << line;
  }
  return records;
}

std::vector<Json> OfKind(const std::vector<Json>& records, std::string_view kind) {
  std::vector<Json> found;
  for (const Json& r : records)
    if (r["kind"] == kind) found.push_back(r);
  return found;
}

Strings KeysOf(const Json& object) {
  Strings keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

// The last top record of a run with JSON lines on standard output.
Json TopOf(const Result& r) {
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

void ExpectFails(std::span<const Case> cases) {
  for (const Case& c : cases) {
    std::string line;
    for (const std::string& arg : c.args) line.append(arg).append(" ");
    SCOPED_TRACE(line);
    ExpectFails(RunLab(c.args), c.code, c.said);
  }
}

// The verbs as the usage lists them.
Strings Verbs() {
  Strings verbs;
  for (const std::string& line : Lines(RunLab({"--help"}).out))
    if (line.starts_with("  ") && line[2] >= 'a' && line[2] <= 'z' && !line.starts_with("  lab "))
      verbs.push_back(line.substr(2, line.find(' ', 2) - 2));
  return verbs;
}

// --- usage ---

TEST(CliUsage, NoArgumentsShowTheUsage) {
  const Result r = RunLab({});
  EXPECT_EQ(r.code, 2);
  ExpectHas(r.out, {"Usage: lab VERB", "Example: lab ", "Exit codes:"});
  const Strings verbs = Verbs();
  for (const char* verb : {"forward", "bench", "tokenize", "inspect", "list", "synth"})
    EXPECT_EQ(std::count(verbs.begin(), verbs.end(), verb), 1) << verb;
}

TEST(CliUsage, HelpOfEveryVerbHasAnExample) {
  for (const char* help : {"--help", "-h"}) {
    EXPECT_EQ(RunLab({help}).code, 0);
    for (const std::string& verb : Verbs()) {
      const Result r = RunLab({verb, help});
      EXPECT_EQ(r.code, 0) << verb;
      EXPECT_EQ(r.err, "") << verb;
      ExpectHas(r.out, {"Usage: lab " + verb, "Example:\n  lab " + verb, "--help"});
    }
  }
}

TEST(CliUsage, Version) {
  const Result r = RunLab({"--version"});
  EXPECT_EQ(r.code, 0);
  EXPECT_TRUE(r.out.starts_with("lab ")) << r.out;
  ExpectHas(r.out, {"commit", "compiler", "highway", "cuda"});
}

TEST(CliUsage, UnknownNamesShowTheNearest) {
  const Case cases[] = {
      {{"forwrd"}, 2, {"unknown verb 'forwrd'", "did you mean 'forward'?", "inspect"}},
      {{"frobnicate"}, 2, {"unknown verb 'frobnicate'", "known: forward, check"}},
      {{"a\nb\x1b"}, 2, {"'a\\x0ab\\x1b'"}},
      {{"forward", "--theads", "3"}, 2, {"--theads", "did you mean '--threads'?"}},
      {{"forward", "--promt=x"}, 2, {"--promt", "did you mean '--prompt'?"}},
      {{"bench", "--benchmark_filterx=1"}, 2, {"--benchmark_filterx"}},
      {{"tokenize", "--decod"}, 2, {"did you mean '--decode'?"}},
      {{"inspect", "--formt", "text"}, 2, {"did you mean '--format'?"}},
      {{"list", "taps", "--zzz"}, 2, {"--zzz"}},
      {{"synth", "tiny", "--outptu", "f"}, 2, {"did you mean '--output'?"}},
      {{"list", "tpas"}, 2, {"unknown value 'tpas'", "did you mean 'taps'?"}},
      {{"synth", "tinny", "-o", "/tmp/none"}, 2, {"'tinny'", "tiny, random:0.5b"}},
      {{"forward", "--model", "tiny", "--backend", "oracel"},
       2,
       {"--backend", "did you mean 'oracle'?"}},
      {kShort + Strings{"--contract", "f23"}, 2, {"--contract", "'f23'", "known: f32"}},
      {kShort + Strings{"--kv", "f23"}, 2, {"--kv", "'f23'", "f32"}},
      {kShort + Strings{"--format", "jsnl"}, 2, {"--format", "did you mean 'jsonl'?"}},
      {kShort + Strings{"--taps", "ffn_swiglo"}, 3, {"ffn_swiglo", "did you mean 'ffn_swiglu'?"}},
      {kShort + Strings{"--trace", "--taps", "L03.*,nope"}, 3, {"'nope' selects no tap"}},
      {kShort + Strings{"--dump", "/dev/null", "--taps", "L28.*"}, 3, {"'L28.*' selects no tap"}}};
  ExpectFails(cases);
}

TEST(CliUsage, BadValues) {
  const Case cases[] = {
      {kShort + Strings{"--threads", "0"}, 2, {"--threads", "1 to 1024"}},
      {kShort + Strings{"--threads", "1025"}, 2, {"--threads", "1 to 1024"}},
      {kShort + Strings{"--threads", "-1"}, 2, {"--threads", "1 to 1024"}},
      {kShort + Strings{"--threads=-1"}, 2, {"--threads", "1 to 1024"}},
      {kShort + Strings{"--threads", "abc"}, 2, {"--threads", "abc"}},
      {kShort + Strings{"--threads", "99999999999"}, 2, {"--threads"}},
      {{"bench", "--model", "tiny", "--threads", "0"}, 2, {"--threads", "1 to 1024"}},
      {{"forward", "--model", "tiny", "--backend", "cuda"}, 2, {"--backend cuda", "no such row"}},
      {kShort + Strings{"-n", "-1"}, 2, {"-n", "-1"}},
      {kShort + Strings{"-n", "x"}, 2, {"-n", "x"}},
      {kShort + Strings{"-n", "40000"}, 2, {"40000", "context of 32768"}},
      {kShort + Strings{"--top", "-1"}, 2, {"--top", "-1"}},
      {kForward + Strings{"--tokens", "512"}, 2, {"512 is no token", "0 to 511"}},
      {kForward + Strings{"--tokens", "-1"}, 2, {"'-1' is not a token id"}},
      {kForward + Strings{"--tokens", "1,,2"}, 2, {"'' is not a token id"}},
      {kForward + Strings{"--tokens", "1,2,"}, 2, {"'' is not a token id"}},
      {kForward + Strings{"--tokens", "1 2"}, 2, {"'1 2' is not a token id"}},
      {kForward + Strings{"--tokens", "x\n"}, 2, {"'x\\x0a' is not a token id"}},
      {kForward + Strings{"--tokens", "99999999999999999999"}, 2, {"is not a token id"}},
      {kForward + Strings{"--prompt", ""}, 2, {"prompt is empty"}},
      {kForward + Strings{"--prompt-file", "/dev/null"}, 2, {"prompt is empty"}},
      {kForward + Strings{"--prompt", "ab\xff"}, 2, {"not UTF-8", "offset 2"}},
      {kForward + Strings{"--prompt", "x", "--tokens", "1"}, 2, {"--prompt excludes --tokens"}},
      {kForward + Strings{"--chat", "--tokens", "1"}, 2, {"--chat", "--tokens"}},
      {kForward + Strings{"--prompt-file", "/none"}, 2, {"/none: cannot open"}},
      {kForward + Strings{"--prompt-file", "/"}, 2, {"/: cannot read"}},
      {kShort + Strings{"extra"}, 2, {"extra"}},
      {{"list"}, 2, {"required"}},
      {{"synth", "tiny"}, 2, {"--output is required"}},
      {{"tokenize", "--model", "tiny"}, 2, {"give one of --prompt"}},
      {{"tokenize", "--model", "tiny", "--prompt", "a", "--tokens", "1"}, 2, {"give one of"}},
      {{"tokenize", "--model", "tiny", "--prompt", "a", "--decode"}, 2, {"--decode"}},
      {{"tokenize", "--model", "tiny", "--tokens", "1"}, 2, {"--decode"}},
      {{"tokenize", "--model", "tiny", "--decode", "--tokens", "512"}, 2, {"512 is no token"}}};
  ExpectFails(cases);
}

// A variable that the shell expands to nothing must not mean "use the default".
TEST(CliUsage, EmptyValuesAreNotTakenForAbsentOnes) {
  const Case cases[] = {{kForward + Strings{"--tokens", ""}, 2, {"--tokens", "empty"}},
                        {kForward + Strings{"--prompt-file", ""}, 2, {"--prompt-file", "empty"}},
                        {kShort + Strings{"--dump", ""}, 2, {"--dump", "empty"}},
                        {kShort + Strings{"--taps", ""}, 2, {"--taps", "empty"}},
                        {{"forward", "--model", ""}, 2, {"--model", "empty"}},
                        {{"inspect", ""}, 2, {"empty"}},
                        {{"tokenize", "--model", "tiny", "--jsonl", ""}, 2, {"--jsonl", "empty"}},
                        {{"synth", "tiny", "-o", ""}, 2, {"--output", "empty"}}};
  ExpectFails(cases);
}

TEST(CliUsage, FilesThatAreNoModel) {
  TempDir dir;
  fs::create_directory(dir / "folder");
  WriteBytes(dir / "empty", "");
  WriteBytes(dir / "garbage", std::string(10000, 'x'));
  const std::string_view tiny = AsText(TinyGguf());
  WriteBytes(dir / "half", tiny.substr(0, tiny.size() / 2));
  WriteBytes(dir / "start", tiny.substr(0, 1000));
  const struct {
    const char *name, *said;
  } files[] = {{"missing", "cannot open: No such file"}, {"folder", "not a regular file"},
               {"empty", "the file is empty"},           {"garbage", "not a GGUF file"},
               {"half", "past the end of the file"},     {"start", "truncated"}};
  for (const auto& file : files) {
    const std::string path = dir / file.name;
    const Case cases[] = {{{"forward", "--model", path}, 2, {path + ": ", file.said}},
                          {{"bench", "--model", path}, 2, {path + ": ", file.said}},
                          {{"inspect", path}, 2, {path + ": ", file.said}},
                          {{"tokenize", "--model", path, "--prompt", "x"}, 2, {path, file.said}}};
    ExpectFails(cases);
  }
}

TEST(CliUsage, AnotherArchitecture) {
  TempDir dir;
  std::vector<uint8_t> llama = TinyGguf();
  // Behind the length of the string; both names have five letters.
  std::memcpy(&llama[OffsetOfValue(llama, "general.architecture") + 8], "llama", 5);
  const std::string path = WriteBytes(dir / "llama.gguf", AsText(llama));
  ExpectFails(RunLab({"forward", "--model", path}), 2, {path, "architecture is 'llama'", "qwen2"});
}

// --- which model ---

TEST(CliModel, NoneAnywhereMeansTinyAndSaysSo) {
  const Result r = RunLab({"forward", "--trace"});
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(Lines(r.err).size(), 1u) << r.err;
  ExpectHas(r.err, {"no model found", "'tiny'", "./dev model"});
  ExpectHas(r.out, {"tiny (qwen2)", "L00 mean", "L27 mean", "top 5 after"});
}

TEST(CliModel, TheFlagThenTheVariableThenTheFetchedFile) {
  Process fetched({"forward", "--tokens", "1", "--format", "jsonl"});
  fs::create_directories(fetched.cache() + "/lab");
  const std::string path =
      WriteTiny(fetched.cache() + "/lab/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf");
  const Result r = fetched();
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(r.err, "lab: model " + path + "\n");
  EXPECT_EQ(Records(r.out).at(0)["model"], path);

  Process variable({"forward", "--tokens", "1"});
  const Result v = variable.Env("LAB_MODEL", "/none")();
  EXPECT_EQ(v.code, 2);
  ExpectHas(v.err, {"lab: model /none (from $LAB_MODEL)\n", "lab: /none: cannot open"});
  Process flag(kShort);
  const Result f = flag.Env("LAB_MODEL", "/none")();
  EXPECT_EQ(f.code, 0);
  EXPECT_EQ(f.err, "");
}

TEST(CliModel, ASynthesisedFileGivesTheSameLogits) {
  TempDir dir;
  const std::string path = dir / "tiny.gguf";
  const Result synth = RunLab({"synth", "tiny", "-o", path});
  EXPECT_EQ(synth.code, 0) << synth.err;
  EXPECT_EQ(synth.out, "");
  EXPECT_EQ(ReadBytes(path) == AsText(TinyGguf()), true);
  const Strings rest = {"--tokens", "7,8,9", "--format", "jsonl", "--model"};
  const Json top = TopOf(RunLab(Strings{"forward"} + rest + Strings{path}));
  EXPECT_EQ(top, TopOf(RunLab(Strings{"forward"} + rest + Strings{"tiny"})));
  EXPECT_EQ(top["ids"].size(), 5u);
}

TEST(CliModel, ItsHashStandsInTheTraceAndIsRemembered) {
  TempDir dir;
  const std::string path = WriteTiny(dir / "m.gguf");
  const std::string hash = Sha256(TinyGguf());
  const Strings args = {"forward", "--model", path, "--tokens", "1", "--trace=-"};
  const auto hash_of = [](const Result& r) { return Records(r.out).at(0)["sha256"]; };

  Process first(args);
  EXPECT_EQ(hash_of(first.Env("XDG_CACHE_HOME", dir / "cache")()), hash);
  const std::string memory = dir / "cache/lab/sha256.json";
  ASSERT_TRUE(fs::exists(memory));
  // What is remembered is used: a false memory shows.
  std::string text = ReadBytes(memory);
  text.replace(text.find(hash), hash.size(), std::string(64, '0'));
  WriteBytes(memory, text);
  Process second(args);
  EXPECT_EQ(hash_of(second.Env("XDG_CACHE_HOME", dir / "cache")()), std::string(64, '0'));
  fs::last_write_time(path, fs::last_write_time(path) - std::chrono::hours(1));
  Process touched(args);
  EXPECT_EQ(hash_of(touched.Env("XDG_CACHE_HOME", dir / "cache")()), hash);

  WriteBytes(memory, "{damaged");
  Process damaged(args);
  EXPECT_EQ(hash_of(damaged.Env("XDG_CACHE_HOME", dir / "cache")()), hash);
  Process nowhere(args);
  EXPECT_EQ(hash_of(nowhere.Env("XDG_CACHE_HOME", "/dev/null")()), hash);
}

TEST(CliModel, APathThatIsNotUtf8) {
  TempDir dir;
  const std::string path = WriteTiny(dir / "m\xff.gguf");
  const Result r = RunLab(
      {"forward", "--model", path, "--tokens", "1", "--trace=" + (dir / "t"), "--dump", dir / "d"});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(Records(ReadBytes(dir / "t")).at(0)["sha256"], Sha256(TinyGguf()));
  EXPECT_NE(Safetensors(dir / "d").Find("lm_head"), nullptr);
}

// --- trace and dump ---

constexpr size_t kLayers = 28;

size_t LayerTaps() {
  size_t n = 0;
  for (const TapInfo& tap : Taps()) n += tap.per_layer;
  return n;
}

TEST(CliTrace, JsonLinesOnStandardOutput) {
  const Result r = RunLab(kForward + Strings{"--tokens", "5,6,7", "--trace=-"});
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(r.err, "");
  const std::vector<Json> records = Records(r.out);
  ASSERT_FALSE(records.empty());
  EXPECT_EQ(records.front()["kind"], "header");
  EXPECT_EQ(records.back()["kind"], "summary");
  EXPECT_EQ(OfKind(records, "header").size(), 1u);
  const auto taps = OfKind(records, "tap"), tops = OfKind(records, "top");
  EXPECT_EQ(taps.size(), 3 * (kLayers * LayerTaps() + Taps().size() - LayerTaps()));
  EXPECT_EQ(tops.size(), 3u) << "a traced prefill has the top of every token";
  const Json& summary = records.back();
  EXPECT_EQ(summary["tokens"], 3);
  EXPECT_EQ(summary["taps"], taps.size());
  EXPECT_EQ(summary["tops"], tops.size());
  EXPECT_EQ(summary["nan"], 0);
  EXPECT_EQ(summary["inf"], 0);
}

TEST(CliTrace, RecordsHaveTheKeysOfTheFormat) {
  const std::vector<Json> records = Records(RunLab(kShort + Strings{"--trace=-"}).out);
  const Strings stats = {"n",   "nan", "inf",    "zeros",  "min", "max",  "mean",
                         "std", "rms", "absmax", "argmax", "l2",  "crest"};
  const Strings tap = Strings{"kind", "tap", "layer", "token", "id"} + stats;
  std::set<std::string> bare;
  for (const Json& r : OfKind(records, "tap")) {
    EXPECT_EQ(KeysOf(r), tap);
    EXPECT_EQ(r["id"], r["token"] == 0 ? 1 : 2);
    for (const std::string& key : stats) EXPECT_TRUE(r[key].is_number()) << r;
    if (r["layer"].is_null()) bare.insert(r["tap"]);
  }
  EXPECT_EQ(bare, (std::set<std::string>{"embedding", "final_norm", "lm_head"}));
  for (const Json& r : OfKind(records, "top")) {
    EXPECT_EQ(KeysOf(r), Strings({"kind", "token", "ids", "logits", "p"}));
    EXPECT_EQ(r["ids"].size(), 5u);
    EXPECT_TRUE(std::is_sorted(r["logits"].rbegin(), r["logits"].rend()));
  }
  for (const Json& r : OfKind(records, "pooled"))
    EXPECT_EQ(KeysOf(r),
              (Strings{"kind", "tap", "layer", "tokens"} + stats) + Strings{"argmax_token"});
}

TEST(CliTrace, TheHeaderSaysWhatWasRun) {
  const Strings args =
      kShort + Strings{"-n", "2", "--ignore-eos", "--trace=-", "--threads", "1", "--taps", "L03.*"};
  const Result r = RunLab(args);
  const Json header = Records(r.out).at(0);
  for (const char* key : {"schema",   "model",          "sha256", "architecture", "types",
                          "ids",      "positions",      "steps",  "recorded",     "contract",
                          "kv",       "backend",        "rows",   "threads",      "commit",
                          "compiler", "highway_target", "device", "command_line", "layers"})
    EXPECT_TRUE(header.contains(key)) << key;
  EXPECT_EQ(header["command_line"].get<Strings>(), args);
  EXPECT_EQ(header["ids"].size(), 3u) << "two of the prompt, one generated and run";
  EXPECT_EQ(header["positions"], Json({0, 1, 2}));
  EXPECT_EQ(header["steps"].size(), 2u);
  EXPECT_EQ(header["steps"][0], Json({{"phase", "prefill"}, {"first", 0}, {"tokens", 2}}));
  EXPECT_EQ(header["steps"][1], Json({{"phase", "decode"}, {"first", 2}, {"tokens", 1}}));
  EXPECT_EQ(header["types"].size(), Gguf(FileBytes::Borrow("tiny", TinyGguf())).tensors().size());
  EXPECT_EQ(header["types"]["output.weight"], "Q6_K");
  EXPECT_EQ(header["threads"], 1);
  EXPECT_EQ(header["backend"], "ref");
}

TEST(CliTrace, NumbersHaveNineDigits) {
  for (const Json& r : OfKind(Records(RunLab(kShort + Strings{"--trace=-"}).out), "tap")) {
    const double value = r["std"];
    char text[40];
    snprintf(text, sizeof text, "%.9g", value);
    EXPECT_EQ(std::strtod(text, nullptr), value) << r;
  }
}

TEST(CliTrace, TapsAreChosenByNameAndByPath) {
  const Result r = RunLab(kShort + Strings{"--trace=-", "--taps", "ffn_swiglu,L03.q_*,lm_head"});
  std::map<std::string, size_t> counts;
  for (const Json& record : OfKind(Records(r.out), "tap")) ++counts[record["tap"]];
  EXPECT_EQ(counts, (std::map<std::string, size_t>{{"ffn_swiglu", 2 * kLayers},
                                                   {"q_proj", 2},
                                                   {"q_bias", 2},
                                                   {"q_rope", 2},
                                                   {"lm_head", 2}}));
}

TEST(CliTrace, AFileAndATableAtOnce) {
  TempDir dir;
  const Result r = RunLab(kShort + Strings{"--trace=" + (dir / "t.jsonl")});
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(dir.Names(), Strings{"t.jsonl"});
  ExpectHas(r.out, {"L27 mean", "top 5 after"});
  EXPECT_EQ(Records(ReadBytes(dir / "t.jsonl")).at(0)["kind"], "header");
  EXPECT_EQ(r.out.find('\x1b'), std::string::npos) << "no colour where no terminal is";
}

TEST(CliTrace, FormatJsonlAndTheTraceAgree) {
  TempDir dir;
  const Result r = RunLab(kShort + Strings{"--format", "jsonl", "--trace=" + (dir / "t")});
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(r.out, ReadBytes(dir / "t"));
}

TEST(CliTrace, CsvHasALineForEachLayerAndToken) {
  TempDir dir;
  const Result r = RunLab(kForward + Strings{"--tokens", "1,2,3", "--trace=" + (dir / "t.csv")});
  EXPECT_EQ(r.code, 0);
  const Strings lines = Lines(ReadBytes(dir / "t.csv"));
  ASSERT_EQ(lines.size(), kLayers * 3 + 1);
  EXPECT_TRUE(lines[0].starts_with("layer,token,id,attn_norm_mean,attn_norm_std")) << lines[0];
  EXPECT_TRUE(lines[5].starts_with("1,1,2,")) << lines[5];
  for (const std::string& line : lines)
    EXPECT_EQ(std::count(line.begin(), line.end(), ','), 2 + 4 * static_cast<long>(LayerTaps()));
}

TEST(CliTrace, ChangesNoLogit) {
  const Strings args =
      kForward + Strings{"--tokens", "9,8,7,6", "--format", "jsonl", "--top", "512"};
  const Json untraced = TopOf(RunLab(args));
  EXPECT_EQ(untraced["logits"].size(), 512u);
  EXPECT_EQ(untraced, TopOf(RunLab(args + Strings{"--trace"})));
  EXPECT_EQ(untraced, TopOf(RunLab(args + Strings{"--dump", "/dev/null"})));
  EXPECT_EQ(OfKind(Records(RunLab(args).out), "top").size(), 1u);
}

TEST(CliTrace, ADumpHoldsTheTensorsOfTheTrace) {
  for (const char* backend : {"ref", "oracle"}) {
    SCOPED_TRACE(backend);
    TempDir dir;
    const Result r =
        RunLab({"forward", "--model", "tiny", "--tokens", "1,2", "--backend", backend, "--trace=-",
                "--dump", dir / "d", "--taps", "L03.*,embedding,lm_head"});
    EXPECT_EQ(r.code, 0) << r.err;
    const Safetensors dump(dir / "d");
    EXPECT_EQ(dump.entries().size(), LayerTaps() + 2);
    EXPECT_EQ(dump.metadata().at("ids"), "1,2");
    for (const Json& tap : OfKind(Records(r.out), "tap")) {
      const std::string name = tap["tap"];
      const auto* tensor = dump.Find(tap["layer"].is_null() ? name : "L03." + name);
      ASSERT_NE(tensor, nullptr) << name;
      const size_t n = tap["n"], token = tap["token"];
      EXPECT_EQ(tensor->shape, (std::vector<size_t>{2, n}));
      EXPECT_EQ(tensor->dtype, std::string(backend) == "oracle" ? "F64" : "F32");
      double squares = 0;
      for (size_t i = 0; i < n; ++i) squares += std::pow(tensor->At(token * n + i), 2);
      EXPECT_NEAR(std::sqrt(squares) / tap["l2"].get<double>(), 1, 1e-8) << name;
    }
  }
}

TEST(CliTrace, NonFiniteValuesAreNamedAndGiveFour) {
  TempDir dir;
  std::vector<uint8_t> bytes = TinyGguf();
  const Gguf gguf(FileBytes::Borrow("tiny", TinyGguf()));
  const float nan = std::nanf("");
  std::memcpy(&bytes[gguf.FindTensor("blk.2.ffn_norm.weight")->offset + 40], &nan, sizeof nan);
  const std::string path = WriteBytes(dir / "nan.gguf", AsText(bytes));
  const Strings args = {"forward", "--model", path, "--backend", "ref", "--tokens", "1"};
  const Result r = RunLab(args + Strings{"--trace=-"});
  EXPECT_EQ(r.code, 4);
  EXPECT_EQ(r.err, "lab: first value that is not finite: L02.ffn_norm token 0 channel 10\n");
  for (const Json& tap : OfKind(Records(r.out), "tap"))
    if (tap["tap"] == "ffn_norm" && tap["layer"] == 2) {
      EXPECT_EQ(tap["nan"], 1);
      EXPECT_EQ(tap["mean"], "NaN");
    }
  EXPECT_GT(Records(r.out).back()["nan"], 0);
  EXPECT_EQ(RunLab(args).code, 4);
}

// --- check --forward ---

const Strings kComposed = {"check", "--forward", "--model", "tiny"};

TEST(CliCheckForward, JsonLinesHoldEveryTapAndTokenOfEveryContract) {
  const Result r =
      RunLab(kComposed + Strings{"--tokens", "1,2,3", "--generate", "2", "--format", "jsonl"});
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(r.err, "");
  const std::vector<Json> records = Records(r.out);
  const size_t places = 3 * (3 + 20 * 28) * 5;
  std::set<std::string> seen;
  for (const Json& tap : OfKind(records, "tap")) {
    EXPECT_EQ(tap["verdict"], "pass") << tap;
    seen.insert(fmt::format("{} {} {} {}", tap["contract"].dump(), tap["tap"].dump(),
                            tap["layer"].dump(), tap["token"].dump()));
  }
  EXPECT_EQ(seen.size(), places);
  EXPECT_EQ(OfKind(records, "logits").size(), 15u);
  const auto tokens = OfKind(records, "tokens");
  ASSERT_EQ(tokens.size(), 3u);
  for (const Json& t : tokens) EXPECT_EQ(t["positions"], 3);
  EXPECT_EQ(records.size(), places + 15 + 3 + 1);
  EXPECT_EQ(records.back()["kind"], "summary");
  EXPECT_EQ(records.back()["passed"], places);
}

TEST(CliCheckForward, TextHasALineForEachTapWorstFirstIfAsked) {
  const Result r = RunLab(
      kComposed + Strings{"--tokens", "1,2,3", "--contract", "q8", "--kv", "f32", "--worst"});
  EXPECT_EQ(r.code, 0) << r.err;
  const Strings lines = Lines(r.out);
  double before = 1;
  for (size_t i = 1; i <= 23; ++i) {
    EXPECT_TRUE(lines.at(i).starts_with("pass     q8        f32 ")) << lines[i];
    const double ratio = std::stod(lines[i].substr(lines[i].rfind(' ')));
    EXPECT_LE(ratio, before);
    before = ratio;
  }
  EXPECT_EQ(lines.at(24), "");
  ExpectHas(r.out, {"t2, last of the prompt", "t0", "t1, worst of the others"});
  ExpectHas(lines.back(), {"1689 taps passed, 0 failed", "1 argmaxes, 0 ties, 0 failed"});
}

TEST(CliCheckForward, WhatDoesNotGoTogether) {
  const Case cases[] = {
      {kComposed + Strings{"--op", "silu"}, 2, {"--op excludes --forward"}},
      {kComposed + Strings{"--case", "x"}, 2, {"--case excludes --forward"}},
      {kComposed + Strings{"--cases", "x"}, 2, {"--cases excludes --forward"}},
      {kComposed + Strings{"--layer", "3"}, 2, {"--layer excludes --forward"}},
      {kComposed + Strings{"--repeat", "2"}, 2, {"--repeat excludes --forward"}},
      {{"check", "--prompt", "x"}, 2, {"--prompt requires --forward"}},
      {{"check", "--tokens", "1"}, 2, {"--tokens requires --forward"}},
      {{"check", "--kv", "f16"}, 2, {"--kv requires --forward"}},
      {{"check", "--generate", "1"}, 2, {"--generate requires --forward"}},
      {kComposed + Strings{"--prompt", "x", "--tokens", "1"}, 2, {"--prompt excludes --tokens"}},
      {kComposed + Strings{"--prompt", ""}, 2, {"prompt is empty"}},
      {kComposed + Strings{"--generate", "-1"}, 2, {"--generate", "-1"}},
      {kComposed + Strings{"--generate", "40000"}, 2, {"40000", "context of 32768"}},
      {kComposed + Strings{"--tokens", "512"}, 2, {"512 is no token"}},
      {kComposed + Strings{"--kv", "f8"}, 2, {"--kv", "'f8'"}},
      {kComposed + Strings{"--backend", "oracle"}, 2, {"--backend oracle", "give ref or hwy"}},
      {kComposed + Strings{"--backend", "cuda"}, 2, {"--backend cuda", "no such row"}}};
  ExpectFails(cases);
}

TEST(CliCheckForward, ACandidateThatIsNotFiniteGivesFour) {
  TempDir dir;
  std::vector<uint8_t> bytes = TinyGguf();
  const Gguf gguf(FileBytes::Borrow("tiny", TinyGguf()));
  const float nan = std::nanf("");
  std::memcpy(&bytes[gguf.FindTensor("blk.2.ffn_norm.weight")->offset + 40], &nan, sizeof nan);
  const std::string path = WriteBytes(dir / "nan.gguf", AsText(bytes));
  const Result r = RunLab({"check", "--forward", "--model", path, "--contract", "f32"});
  EXPECT_EQ(r.code, 4);
  EXPECT_EQ(r.err, "lab: first value that is not finite: f32 L02.ffn_norm token 0 channel 10\n");
}

// --- generation ---

TEST(CliForward, GeneratesAsManyAsAsked) {
  for (const size_t n : {0, 1, 3}) {
    const Strings args = kShort + Strings{"-n", std::to_string(n), "--ignore-eos"};
    const auto records = Records(RunLab(args + Strings{"--format", "jsonl"}).out);
    const auto generated = OfKind(records, "generated");
    ASSERT_EQ(generated.size(), n > 0 ? 1u : 0u);
    // The last token generated is never run.
    EXPECT_EQ(records.at(0)["ids"].size(), 2 + (n > 0 ? n - 1 : 0));
    if (n == 0) continue;
    EXPECT_EQ(generated[0]["ids"].size(), n);
    EXPECT_EQ(generated[0]["end"], "length");
    EXPECT_EQ(RunLab(args).out, generated[0]["text"].get<std::string>() + "\n");
  }
}

TEST(CliForward, StopsAtTheEndOfText) {
  TempDir dir;
  const Strings rest = {"--tokens", "1,2", "-n", "3", "--format", "jsonl"};
  const auto generated = [&](const Strings& args) {
    return OfKind(Records(RunLab(Strings{"forward"} + args + rest).out), "generated").at(0);
  };
  const auto ids =
      generated({"--model", "tiny", "--ignore-eos"})["ids"].get<std::vector<uint32_t>>();
  std::vector<uint8_t> bytes = TinyGguf();
  std::memcpy(&bytes[OffsetOfValue(bytes, "tokenizer.ggml.eos_token_id")], &ids[1], sizeof ids[1]);
  const std::string path = WriteBytes(dir / "eos.gguf", AsText(bytes));
  const size_t expected = ids[0] == ids[1] ? 1 : 2;
  const Json stopped = generated({"--model", path});
  EXPECT_EQ(stopped["ids"].size(), expected);
  EXPECT_EQ(stopped["end"], "end_of_text");
  EXPECT_EQ(generated({"--model", path, "--ignore-eos"})["ids"].size(), 3u);
}

TEST(CliForward, ThePromptComesFromAFlagAFileOrStandardInput) {
  TempDir dir;
  const std::string text = "a \xc3\xa9\n";
  const Strings args = kForward + Strings{"--format", "jsonl"};
  const Json expected = {97, 32, 195, 169, 10};
  const auto ids = [](const Result& r) { return Records(r.out).at(0)["ids"]; };
  EXPECT_EQ(ids(RunLab(args + Strings{"--prompt", text})), expected);
  EXPECT_EQ(ids(RunLab(args + Strings{"--prompt-file", WriteBytes(dir / "p", text)})), expected);
  EXPECT_EQ(ids(Process(args + Strings{"--prompt-file", "-"}).Input(text)()), expected);
  EXPECT_EQ(ids(RunLab(args + Strings{"--tokens", "97, 32,195,169,10"})), expected);
}

// --- outputs ---

TEST(CliOutput, FoundUnwritableBeforeAnythingIsComputed) {
  TempDir dir;
  WriteBytes(dir / "file", "old");
  fs::create_directory(dir / "folder");
  const Strings before = dir.Names();
  for (const std::string flag : {"--trace=", "--dump="}) {
    for (const auto& [path, why] :
         {std::pair(dir / "none/t", "No such file or directory"),
          std::pair(dir / "folder", "Is a directory"), std::pair(dir / "file/t", "Not a directory"),
          std::pair(std::string("/proc/t"), "cannot create a file")}) {
      SCOPED_TRACE(flag + path);
      // Two thousand tokens take minutes; the limit of Finish is far below.
      Process run(kShort + Strings{"-n", "2000", "--ignore-eos", flag + path});
      run.Start();
      ExpectFails(run.Finish(std::chrono::seconds(20)), 2, {path + ": ", why});
    }
  }
  EXPECT_EQ(dir.Names(), before);
}

TEST(CliOutput, AFullDevice) {
  for (const Strings& args :
       {kShort + Strings{"--trace=/dev/full"}, kShort + Strings{"--dump", "/dev/full"},
        Strings{"synth", "tiny", "-o", "/dev/full"}})
    ExpectFails(RunLab(args), 2, {"/dev/full: cannot write: No space left on device"});
}

TEST(CliOutput, StandardOutputThatCannotBeWritten) {
  for (const Strings& args : {Strings{"--version"}, Strings{"--help"}, Strings{"list", "taps"},
                              kShort, kShort + Strings{"--trace=-"}, Strings{"inspect", "tiny"},
                              Strings{"tokenize", "--model", "tiny", "--prompt", "x"}}) {
    SCOPED_TRACE(args[0]);
    Process full(args);
    ExpectFails(full.Connect(STDOUT_FILENO, "/dev/full", O_WRONLY)(), 2, {"No space left"});
    Process closed(args);
    ExpectFails(closed.Close(STDOUT_FILENO)(), 2, {"Bad file descriptor"});
  }
}

// With no standard output, the next file that opens must not take its place.
TEST(CliOutput, NoTextGoesIntoADumpInsteadOfAClosedStream) {
  for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) {
    TempDir dir;
    Process run({"forward", "--tokens", "1,2", "-n", "2", "--ignore-eos", "--dump", dir / "d"});
    const int code = run.Env("LAB_MODEL", "tiny").Close(stream)().code;
    EXPECT_EQ(code, stream == STDOUT_FILENO ? 2 : 0);
    if (code == 0) {
      EXPECT_NE(Safetensors(dir / "d").Find("lm_head"), nullptr);
    } else {
      EXPECT_EQ(dir.Names(), Strings());
    }
  }
}

TEST(CliOutput, ALogThatCannotBeWrittenChangesNoExitCode) {
  const struct {
    Strings args;
    int code;
  } cases[] = {{{"nope"}, 2}, {{"forward", "--tokens", "1"}, 0}, {{"list", "nope"}, 2}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.args[0]);
    EXPECT_EQ(Process(c.args).Connect(STDERR_FILENO, "/dev/full", O_WRONLY)().code, c.code);
    EXPECT_EQ(Process(c.args).Close(STDERR_FILENO)().code, c.code);
  }
}

// A pipe whose reader has gone.
class ClosedPipe {
 public:
  ClosedPipe() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    close(ends[0]);
    writer_ = ends[1];
  }
  ~ClosedPipe() { close(writer_); }
  int writer() const { return writer_; }

 private:
  int writer_;
};

TEST(CliOutput, AClosedPipeEndsTheRunSilently) {
  for (const Strings& args :
       {Strings{"--version"}, Strings{"list", "taps"}, kShort, kShort + Strings{"--trace=-"},
        kShort + Strings{"--trace=/dev/stdout"}, kShort + Strings{"-n", "2000", "--ignore-eos"},
        kShort + Strings{"--format", "jsonl"}, kShort + Strings{"--dump=-"},
        Strings{"synth", "tiny", "-o", "-"},
        Strings{"bench", "--model", "tiny", "--benchmark_filter=silu",
                "--benchmark_min_time=0.001"}}) {
    SCOPED_TRACE(args[0] + " " + args.back());
    ClosedPipe pipe;
    const Result r = Process(args).Connect(STDOUT_FILENO, pipe.writer())();
    EXPECT_EQ(r.code, 141);
    EXPECT_TRUE(r.err.empty() || args[0] == "bench") << r.err;
  }
}

TEST(CliOutput, ReplacesAFileAlsoThroughASymlink) {
  TempDir dir;
  WriteBytes(dir / "file", "old");
  fs::create_symlink("file", dir / "link");
  const Result r = RunLab(kShort + Strings{"--trace=" + (dir / "link")});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(fs::is_symlink(dir / "link"));
  EXPECT_EQ(Records(ReadBytes(dir / "file")).at(0)["kind"], "header");
  EXPECT_EQ(dir.Names(), Strings({"file", "link"}));
}

TEST(CliOutput, AFailedRunLeavesTheOldFile) {
  TempDir dir;
  const std::string old = WriteBytes(dir / "file", "old");
  const Case cases[] = {
      {kShort + Strings{"--trace=" + old, "--dump", "/dev/full"}, 2, {"/dev/full"}},
      {kShort + Strings{"--dump", old, "--trace=/none/t"}, 2, {"/none/t"}},
      {kShort + Strings{"--trace=" + old, "--taps", "nope"}, 3, {"nope"}},
      {kForward + Strings{"--prompt", "", "--dump", old}, 2, {"empty"}},
      {{"synth", "tinny", "-o", old}, 2, {"tinny"}}};
  ExpectFails(cases);
  EXPECT_EQ(ReadBytes(old), "old");
  EXPECT_EQ(dir.Names(), Strings{"file"});
}

// --- signals ---

// True when something appears in the folder within the limit of a hang.
bool WaitForAFile(const TempDir& dir, size_t files) {
  for (int i = 0; i < 10000 && dir.Names().size() < files; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  return dir.Names().size() >= files;
}

TEST(CliSignal, LeavesNoTemporaryAndTheOldFile) {
  const struct { int signal, code; } cases[] = {{SIGINT, 130}, {SIGTERM, 143}, {SIGHUP, 129}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.signal);
    TempDir dir;
    WriteBytes(dir / "old", "old");
    Process run(kShort + Strings{"-n", "2000", "--ignore-eos", "--trace=" + (dir / "old"), "--dump",
                                 dir / "new"});
    run.Start();
    ASSERT_TRUE(WaitForAFile(dir, 3));
    run.Signal(c.signal);
    EXPECT_EQ(run.Finish().code, c.code);
    EXPECT_EQ(dir.Names(), Strings{"old"});
    EXPECT_EQ(ReadBytes(dir / "old"), "old");
  }
}

TEST(CliSignal, HangupIsIgnoredUnderNohup) {
  TempDir dir;
  Process run(kShort + Strings{"-n", "15", "--ignore-eos", "--dump", dir / "d"});
  run.IgnoreHangup().Start();
  ASSERT_TRUE(WaitForAFile(dir, 1));
  run.Signal(SIGHUP);
  EXPECT_EQ(run.Finish().code, 0);
  EXPECT_EQ(dir.Names(), Strings{"d"});
}

// --- the other verbs ---

const Strings kTokenize = {"tokenize", "--model", "tiny"};

TEST(CliTokenize, TextToIdsAndBack) {
  const std::string text = "Hi \xe2\x82\xac\t<|im_end|>\n'quoted'";
  const Result ids = RunLab(kTokenize + Strings{"--prompt", text, "--format", "jsonl"});
  EXPECT_EQ(ids.code, 0);
  const auto tokens = Json::parse(ids.out)["tokens"].get<std::vector<int>>();
  const std::string list = fmt::format("{}", fmt::join(tokens, ","));
  ExpectHas(RunLab(kTokenize + Strings{"--prompt", text}).out,
            {std::to_string(tokens.size()) + " tokens: " + list + "\n", "'<|im_end|>'"});
  const Strings back = kTokenize + Strings{"--decode", "--tokens", list};
  EXPECT_EQ(RunLab(back).out, text + "\n");
  EXPECT_EQ(Json::parse(RunLab(back + Strings{"--format", "jsonl"}).out)["text"], text);
}

TEST(CliTokenize, ChatWrapsAUserTurn) {
  const Result r = RunLab(kTokenize + Strings{"--chat", "--prompt", "Hi", "--format", "jsonl"});
  const auto tokens = Json::parse(r.out)["tokens"].get<std::vector<int>>();
  const Result text = RunLab(
      kTokenize + Strings{"--decode", "--tokens", fmt::format("{}", fmt::join(tokens, ","))});
  EXPECT_TRUE(text.out.starts_with("<|im_start|>system\nYou are Qwen")) << text.out;
  EXPECT_TRUE(text.out.ends_with("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n\n"));
  EXPECT_EQ(tokens.front(), 385) << "one token, not twelve bytes";
}

TEST(CliTokenize, JsonLinesThereAndBack) {
  TempDir dir;
  Strings texts = {"one", "", "<|im_start|>", "\xf0\x9f\x98\x80", "line\nbreak", "\"\\", "  x  "};
  std::string lines;
  for (const std::string& text : texts) lines += Json({{"text", text}}).dump() + "\n";
  const Result there = RunLab(kTokenize + Strings{"--jsonl", WriteBytes(dir / "in", lines + "\n")});
  EXPECT_EQ(there.code, 0) << there.err;
  EXPECT_EQ(Lines(there.out).size(), texts.size());
  const Result back = Process(kTokenize + Strings{"--decode", "--jsonl", "-"}).Input(there.out)();
  EXPECT_EQ(back.code, 0) << back.err;
  EXPECT_EQ(back.out, lines);
}

TEST(CliTokenize, BadJsonLinesAreNamed) {
  TempDir dir;
  const struct {
    const char *line, *said;
    bool decode;
  } cases[] = {{"{", "not a JSON object with \"text\"", false},
               {"[1]", "not a JSON object with \"text\"", false},
               {"{\"texts\": \"x\"}", "not a JSON object with \"text\"", false},
               {"{\"text\": 1}", "\"text\" is not a string", false},
               {"{\"text\": \"\\ud800\"}", "not a JSON object", false},
               {"{\"text\": \"x\"}", "not a JSON object with \"tokens\"", true},
               {"{\"tokens\": 1}", "\"tokens\" is not a list", true},
               {"{\"tokens\": [1, 512]}", "512 is no token", true},
               {"{\"tokens\": [-1]}", "-1 is no token", true},
               {"{\"tokens\": [1.5]}", "1.5 is no token", true},
               {"{\"tokens\": [\"a\\nb\"]}", "is no token", true}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.line);
    const std::string good = c.decode ? "{\"tokens\": [97]}\n" : "{\"text\": \"a\"}\n";
    const std::string path = WriteBytes(dir / "in", good + c.line + "\n");
    const Strings decode = c.decode ? Strings{"--decode"} : Strings{};
    const Result r = RunLab(kTokenize + Strings{"--jsonl", path} + decode);
    EXPECT_EQ(r.code, 2);
    EXPECT_EQ(Lines(r.out).size(), 1u) << "the good line before it";
    ExpectHas(r.err, {path + ": line 2: ", c.said});
  }
}

TEST(CliInspect, AModel) {
  const Result text = RunLab({"inspect", "tiny"});
  EXPECT_EQ(text.code, 0);
  ExpectHas(text.out, {"GGUF version 3", "qwen2.block_count", "[512 strings]", "blk.27.ffn_down",
                       "512 x 256", "Q6_K", "read for each decoded token: "});
  const auto records = Records(RunLab({"inspect", "tiny", "--format", "jsonl"}).out);
  const Gguf gguf(FileBytes::Borrow("tiny", TinyGguf()));
  EXPECT_EQ(OfKind(records, "tensor").size(), gguf.tensors().size());
  EXPECT_EQ(OfKind(records, "metadata").size(), gguf.metadata().size());
  EXPECT_EQ(records.at(0)["bytes"], TinyGguf().size());
  uint64_t bytes = 0;
  for (const Json& type : OfKind(records, "type")) bytes += type["bytes"].get<uint64_t>();
  EXPECT_EQ(bytes, TinyGguf().size() - gguf.data_offset());
  const uint64_t per_token = records.back()["bytes_per_token"];
  EXPECT_LT(per_token, bytes);
  ExpectHas(text.out, {"read for each decoded token: " + std::to_string(per_token) + " bytes"});
}

TEST(CliInspect, AFileThatIsNoWholeModel) {
  const std::string path = std::string(LAB_GOLDEN_DIR) + "/every_type.gguf";
  const Result r = RunLab({"inspect", path});
  EXPECT_EQ(r.code, 0) << r.err;
  ExpectHas(r.out, {"t.BF16", "24 x 512", "Q5_0", "not a model that lab can run",
                    "'qwen2.block_count' is missing"});
  const auto records = Records(RunLab({"inspect", path, "--format", "jsonl"}).out);
  EXPECT_EQ(OfKind(records, "tensor").size(), 9u);
  EXPECT_TRUE(records.back()["bytes_per_token"].is_null());
  EXPECT_EQ(RunLab({"forward", "--model", path}).code, 2);
}

TEST(CliList, EachListAsTextAndAsJsonLines) {
  const struct {
    const char* what;
    size_t least;
    Strings has, keys;
  } lists[] = {{"taps", Taps().size(), {"ffn_swiglu", "l_out", "final_norm"}, {"tap", "scope"}},
               {"kernels", 24, {"gqa_attention", "oracle", "MatvecRef"}, {"op", "contract"}},
               {"devices", 2, {"cpu", "cuda"}, {"device", "detail"}}};
  for (const auto& list : lists) {
    SCOPED_TRACE(list.what);
    const Result text = RunLab({"list", list.what});
    EXPECT_EQ(text.code, 0);
    ExpectHas(text.out, list.has);
    const Result jsonl = RunLab({"list", list.what, "--format", "jsonl"});
    const auto records = Records(jsonl.out);
    EXPECT_GE(records.size(), list.least);
    EXPECT_EQ(records.size() + 1, Lines(text.out).size());
    ExpectHas(jsonl.out, list.has);
    for (const Json& record : records)
      for (const std::string& key : list.keys) EXPECT_TRUE(record.contains(key)) << record;
  }
}

TEST(CliBench, RunsWhatTheFilterSelects) {
  const Strings bench = {"bench", "--model", "tiny", "--benchmark_min_time=0.01"};
  const Result r = RunLab(bench + Strings{"--benchmark_filter=silu", "--benchmark_format=json"});
  EXPECT_EQ(r.code, 0) << r.err;
  const Json report = Json::parse(r.out, nullptr, false);
  ASSERT_TRUE(report.is_object()) << r.out;
  ASSERT_FALSE(report["benchmarks"].empty());
  for (const Json& b : report["benchmarks"]) {
    ExpectHas(b["name"], {"silu"});
    EXPECT_GT(b["bytes_per_second"], 0);
  }
  const Result none = RunLab(bench + Strings{"--benchmark_filter=zzz"});
  EXPECT_EQ(none.code, 3);
  ExpectHas(none.err, {"--benchmark_filter"});
  Process full(bench + Strings{"--benchmark_filter=silu"});
  EXPECT_EQ(full.Connect(STDOUT_FILENO, "/dev/full", O_WRONLY)().code, 2);
}

}  // namespace
}  // namespace lab
