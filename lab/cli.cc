#include "lab/cli.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "lab/error.h"
#include "lab/names.h"
#include "lab/output.h"
#include "model/qwen2.h"
#include "model/synth.h"

namespace lab {
namespace {

// The option that an argument such as --top, --top=3 or -n names, or null.
const CLI::Option* OptionOf(const CLI::App& app, std::string_view arg) {
  if (!arg.starts_with('-') || arg.size() < 2) return nullptr;
  return app.get_option_no_throw(std::string(arg.substr(0, arg.find('='))));
}

// CLI11 would take the next flag for the value that is missing before it.
void RefuseMissingValues(const CLI::App& app, int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    const CLI::Option* option = OptionOf(app, arg);
    if (!option || option->get_expected_max() == 0) continue;
    const std::string name = option->get_name();
    if (arg.ends_with('=') && arg.find('=') == arg.size() - 1 && name != "--prompt")
      Fail("{}: {}: the value is empty", app.get_name(), name);
    if (option->get_expected_min() == 0 || arg.find('=') != std::string_view::npos) continue;
    if (i + 1 == argc) Fail("{}: {}: the value is missing", app.get_name(), name);
    if (OptionOf(app, argv[i + 1]))
      Fail("{}: {}: the value is missing before {}", app.get_name(), name, argv[i + 1]);
    ++i;
  }
}

// CLI11 says what went wrong, in words of its own and not which flag was meant.
std::string Explain(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  const std::vector<std::string_view> known(flags.begin(), flags.end());
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i], flag = arg.substr(0, arg.find('='));
    const CLI::Option* option = OptionOf(app, arg);
    if (option && option->get_expected_min() > 0 && flag == arg) ++i;  // its value follows
    if (option || !flag.starts_with('-') || flag.size() < 2) continue;
    if (flag.starts_with("--benchmark_"))
      return fmt::format("{}: Google Benchmark does not know this flag or its value", flag);
    return fmt::format("unknown flag {}{}", Printable(flag), DidYouMean(flag, known));
  }
  for (const CLI::Option* option : app.get_options()) {
    const std::vector<std::string>& values = option->results();
    const std::string& meaning = option->get_description();
    const size_t line = meaning.find('\n');
    if (option->get_required() && option->get_positional() && values.empty())
      return fmt::format("{} is missing: {}{}", option->get_name(), meaning.substr(0, line),
                         line == std::string::npos ? "" : " ...");
    if (option->get_expected_max() == 1 && values.size() > 1 &&
        option->get_multi_option_policy() == CLI::MultiOptionPolicy::Throw)
      return fmt::format("{}: given {} times", option->get_name(), values.size());
    if (error.get_name() == "ConversionError" && values.size() == 1 &&
        std::string_view(error.what()).ends_with(option->get_name() + " = " + values[0]))
      return fmt::format("{}: '{}' is no number that fits here", option->get_name(),
                         Printable(values[0]));
  }
  return Printable(error.what(), 200);
}

// A value that the shell expanded to nothing would pass for an absent one.
void RefuseEmptyValues(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_name();
    const std::vector<std::string>& values = option->results();
    if (option->get_expected_min() > 0 && name != "--prompt" &&
        std::find(values.begin(), values.end(), "") != values.end())
      Fail("{}: {}: the value is empty", app.get_name(), name);
  }
}

// Set while VisitApp runs.
const std::function<void(const CLI::App&)>* visitor = nullptr;

}  // namespace

bool ParseArgs(CLI::App& app, int argc, char** argv) {
  if (visitor) {
    (*visitor)(app);
    return false;
  }
  RefuseMissingValues(app, argc, argv);
  try {
    app.parse(argc, argv);
    RefuseEmptyValues(app);
    return true;
  } catch (const CLI::CallForHelp&) {
    PrintOut(app.help());
    return false;
  } catch (const CLI::ParseError& error) {
    Fail("{}; see '{} --help'", Explain(app, error, argc, argv), app.get_name());
  }
}

void VisitApp(const Verb& verb, const std::function<void(const CLI::App&)>& visit) {
  std::string name(verb.name);
  char* argv[] = {name.data(), nullptr};
  visitor = &visit;
  verb.run(1, argv);
  visitor = nullptr;
}

std::string NotNegative(const std::string& value) {
  return value.starts_with('-') ? fmt::format("cannot be {}", Printable(value)) : "";
}

void AddFormat(CLI::App& app, std::string& format) {
  app.add_option("--format", format, "text for eyes (default) or jsonl for machines")
      ->type_name("text|jsonl");
}

void AddTableFormat(CLI::App& app, std::string& format) {
  app.add_option("--format", format, "text for eyes (default), jsonl, csv or md for others")
      ->type_name("text|jsonl|csv|md");
}

namespace {

Format FormatOf(const std::string& format, std::span<const std::string_view> names) {
  return format.empty() ? Format::text
                        : static_cast<Format>(IndexOfName(names, format, "--format"));
}
constexpr std::string_view kFormatNames[] = {"text", "jsonl", "csv", "md"};

}  // namespace

Format ParseFormat(const std::string& format) {
  return FormatOf(format, std::span(kFormatNames).first(2));
}
Format ParseTableFormat(const std::string& format) {
  return FormatOf(format, kFormatNames);
}

void AddModel(CLI::App& app, std::string& model) {
  app.add_option("--model", model,
                 fmt::format("a GGUF, APR or safetensors file, or a synthetic shape ({}). Default: "
                             "$LAB_MODEL, then the fetched file, then tiny",
                             SynthShapeNames()))
      ->type_name("FILE|SHAPE");
}

std::string ResolveModel(const std::string& model) {
  if (!model.empty()) return model;
  std::string why;
  const std::string found = DefaultModel(&why);
  PrintErr(fmt::format("lab: {}\n", why));
  return found;
}

std::vector<int32_t> ParseIds(std::string_view text, size_t vocab) {
  std::vector<int32_t> ids;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    std::string_view item = text.substr(at, comma - at);
    while (item.starts_with(' ')) item.remove_prefix(1);
    while (item.ends_with(' ')) item.remove_suffix(1);
    uint64_t id = 0;
    const auto [end, error] = std::from_chars(item.data(), item.data() + item.size(), id);
    if (error != std::errc() || end != item.data() + item.size())
      Fail("--tokens: '{}' is not a token id; give numbers such as 3838,374,220", Printable(item));
    if (id >= vocab) Fail("--tokens: {} is no token of this model; ids are 0 to {}", id, vocab - 1);
    ids.push_back(static_cast<int32_t>(id));
    at = comma + 1;
  }
  return ids;
}

void AddThreads(CLI::App& app, int& threads) {
  app.add_option("--threads", threads, "1 to 1024 (default: the cores of this machine)");
}

void AddPassFlags(CLI::App& app, PassFlags& f) {
  app.add_option("--contract", f.contract,
                 "which numbers to produce: f32, or q16 or q8 (activations rounded to\nintegers); "
                 "default q16 with hwy, else f32")
      ->type_name("f32|q16|q8");
  app.add_option("--kv", f.kv, "type of the KV cache: f32 or f16; default f16 under q8, else f32")
      ->type_name("f32|f16");
  app.add_option("--use", f.use,
                 "another row or a mutant for an op, in some layers or all; may be given again:\n"
                 "gate_up@3-5=GateUpRef, silu=mutant:gelu ('lab list kernels', 'lab list mutants')")
      ->type_name("OP[@LAYERS]=ROW|mutant:NAME")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--target", f.target, "SIMD target of the hwy rows (default: the best here)");
}

void AddRowFlags(CLI::App& app, RowFlags& f) {
  app.add_option("--op", f.ops, "only these ops or rows: globs such as matvec,silu")
      ->type_name("GLOB,...");
  app.add_option("--contract", f.contract, "only this contract: f32, q8, q16")
      ->type_name("f32|q16|q8");
  app.add_option("--case", f.cases, "only cases whose name or op matches one of these globs")
      ->type_name("GLOB,...");
}

void CheckThreads(int threads) {
  if (threads < 1 || threads > 1024) Fail("--threads: {} is outside 1 to 1024", threads);
}

ProgressLine::ProgressLine() : on_(isatty(STDERR_FILENO)) {}
ProgressLine::~ProgressLine() {
  (*this)("");
}
void ProgressLine::operator()(std::string_view what) const {
  if (!on_) return;
  // Of a line that wraps, the part above would stay.
  winsize size = {};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  PrintErr(fmt::format("\r\x1b[K{}", what.substr(0, (known ? size.ws_col : 80) - 1)));
}

std::string ReadText(const std::string& path) {
  const int fd = path == "-" ? dup(STDIN_FILENO) : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) Fail("{}: cannot open: {}", path, std::strerror(errno));
  std::string text;
  char buffer[1 << 16];
  ssize_t n;
  while ((n = read(fd, buffer, sizeof buffer)) > 0) text.append(buffer, static_cast<size_t>(n));
  const int error = errno;
  close(fd);
  if (n < 0) Fail("{}: cannot read: {}", path, std::strerror(error));
  return text;
}

}  // namespace lab
