#include "tests/fuzz/targets.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include "lab/case.h"
#include "lab/cli.h"
#include "lab/error.h"
#include "lab/gzip.h"
#include "lab/laws.h"
#include "lab/names.h"
#include "lab/run_headers.h"
#include "lab/shard.h"
#include "model/apr.h"
#include "model/qwen2.h"
#include "model/synth.h"
#include "model/tokenizer.h"
#include "tests/fuzz/memory.h"
#include "tests/views_inside.h"

namespace lab::fuzz {
namespace {

using Bytes = std::span<const uint8_t>;

void Require(bool good, const std::string& what) {
  if (!good) throw std::logic_error(what);
}

std::string_view AsText(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// --- inputs that stand for files ---

// Cuts what stands before the first zero byte off `bytes`; JSON and TOML hold none.
std::string_view CutPart(Bytes& bytes) {
  const std::string_view text = AsText(bytes), part = text.substr(0, text.find('\0'));
  bytes = bytes.subspan(std::min(part.size() + 1, bytes.size()));
  return part;
}

// A header in JSON, a zero byte and the data become a file with the right length in front, which a
// mutation of the header would otherwise nearly always break.
std::string Safetensors(Bytes bytes) {
  const std::string_view header = CutPart(bytes);
  const uint64_t size = header.size();
  std::string file(reinterpret_cast<const char*>(&size), sizeof size);
  return file.append(header).append(AsText(bytes));
}

// A folder of this process's own, in memory where the system has such a place.
class Folder {
 public:
  Folder() {
    const bool shm = std::filesystem::is_directory("/dev/shm");
    path_ = shm ? "/dev/shm/lab-fuzz.XXXXXX" : "/tmp/lab-fuzz.XXXXXX";
    Require(mkdtemp(path_.data()) != nullptr, "cannot make a folder");
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  /// An empty part of the input stands for a file that is absent.
  std::string Write(std::string_view name, std::string_view bytes) const {
    const std::string path = path_ + "/" + std::string(name);
    std::filesystem::remove(path);
    if (!bytes.empty())
      std::ofstream(path, std::ios::binary)
          .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return path;
  }

 private:
  std::string path_;
};

const Folder& OurFolder() {
  static const Folder kFolder;
  return kFolder;
}

// --- what is done with what was read ---

void UseTensor(const WeightTensor& t) {
  if (!t.data) return;
  std::array<float, 300> values;
  const size_t n = std::min<size_t>(t.elements(), values.size());
  DequantFlat(t, 0, n, values.data());
  DequantFlat(t, t.elements() - n, n, values.data());
}

void UseWeights(FileBytes bytes) {
  WeightFile file = ReadWeightFile(std::move(bytes));
  for (const MetaKeyValue& kv : file.metadata()) kv.value.ToText();
  for (const WeightTensor& t : file.tensors()) UseTensor(t);
  CheckAprFooter(file);
  const Qwen2 model = LoadQwen2(std::move(file));
  Require(ViewsInside(model), "a weight lies outside the file");
  const Tokenizer tokenizer(*model.source);
  for (const int32_t id : tokenizer.Encode("What is 2+2?<|im_end|>")) tokenizer.Decode(id);
}

// What is packed has a target of its own: here it would take memory by its unpacked size.
void UseRun(std::string_view bytes) {
  if (IsGzip({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()})) return;
  const RunRecord run = ReadRun(OurFolder().Write("run", bytes));
  CheckLaws(run);
  CompareHeaders(run, run, {});
  for (const auto& [place, pooled] : run.pooled) pooled.tokens.Read();
}

// --- the targets ---

std::vector<uint8_t> Copy(Bytes input) {
  return {input.begin(), input.end()};
}

void ReadGgufInput(Bytes input) {
  UseWeights(FileBytes::FromMemory("input", Copy(input)));
}

// The header's CRC is set right: else no mutation of it gets past the check.
void ReadAprInput(Bytes input) {
  std::vector<uint8_t> bytes = Copy(input);
  if (bytes.size() >= 64) {
    const auto crc =
        static_cast<uint32_t>(crc32_z(crc32_z(0, bytes.data(), 40), bytes.data() + 44, 20));
    std::memcpy(bytes.data() + 40, &crc, sizeof crc);
  }
  UseWeights(FileBytes::FromMemory("input", std::move(bytes)));
}

// config.json, tokenizer.json, and the safetensors file beside them.
void ReadHfInput(Bytes input) {
  OurFolder().Write("config.json", CutPart(input));
  OurFolder().Write("tokenizer.json", CutPart(input));
  UseWeights(FileBytes::Map(OurFolder().Write("model.safetensors", Safetensors(input))));
}

void ReadCaseInput(Bytes input) {
  const std::string path = OurFolder().Write("case.toml", CutPart(input));
  OurFolder().Write("data.safetensors", Safetensors(input));
  for (const Case& c : ReadCaseFile(path).cases)
    Require(ShapeProblem(c).empty(), "a case that cannot be run");
}

void ReadRunInput(Bytes input) {
  UseRun(AsText(input));
}

void ReadDumpInput(Bytes input) {
  UseRun(Safetensors(input));
}

void ReadGzipInput(Bytes input) {
  const size_t most = (size_t{1} << 17) + 16 * input.size();
  Require(Unzip("input", input, most).size() <= most, "more unpacked than was allowed");
}

const Tokenizer& TinyTokenizer() {
  static const WeightFile kFile =
      ReadWeightFile(FileBytes::FromMemory("tiny", MakeSynthGguf("tiny")));
  static const Tokenizer kTokenizer(kFile);
  return kTokenizer;
}

void ReadPromptInput(Bytes input) {
  const std::string_view text = AsText(input);
  const std::vector<int32_t> ids = TinyTokenizer().Encode(text);
  const std::string decoded = TinyTokenizer().Decode(ids);
  Require(text.find("<|") != std::string_view::npos || decoded == Nfc(text),
          "decoding does not give the text back");
  Utf8Stream stream;
  std::string joined;
  for (const int32_t id : ids) joined += stream.Push(TinyTokenizer().Decode(id));
  Require(joined + stream.Finish() == decoded, "the stream of token texts is not their text");
}

// What verbs do with their arguments before they open anything: one argument a line.
void ReadArguments(Bytes input) {
  std::vector<std::string> arguments = {"lab verb"};
  for (std::string_view text = AsText(input); !text.empty();) {
    const size_t end = std::min(text.find('\n'), text.size());
    arguments.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());

  CLI::App app("", "lab verb");
  app.set_help_flag();  // it prints
  std::string model, format, shard, taps, tokens;
  int threads = 1;
  uint64_t layer = 0;
  bool time = false;
  std::optional<std::string> trace;
  AddModel(app, model);
  AddTableFormat(app, format);
  app.add_option("--shard", shard);
  app.add_option("--taps", taps);
  app.add_option("--tokens", tokens);
  app.add_option("--threads", threads);
  app.add_option("--layer", layer)->check(NotNegative);
  app.add_option("--trace", trace)->expected(0, 1);
  app.add_flag("--time", time);
  if (!ParseArgs(app, static_cast<int>(argv.size()), argv.data())) return;
  GlobList(taps).Match("L03.ffn_swiglu");
  CheckThreads(threads);
  const Shard part = ParseShard(shard);
  Require(part.part >= 1 && part.part <= part.parts, "a shard that is none");
  if (!tokens.empty())
    for (const int32_t id : ParseIds(tokens, 512)) Require(id >= 0 && id < 512, "no such token");
  ParseTableFormat(format);
}

}  // namespace

std::span<const Target> Targets() {
  static constexpr Target kTargets[] = {
      {"gguf", ReadGgufInput},      {"apr", ReadAprInput},       {"hf", ReadHfInput},
      {"case", ReadCaseInput},      {"trace", ReadRunInput},     {"dump", ReadDumpInput},
      {"llama_log", ReadRunInput},  {"apr_trace", ReadRunInput}, {"prompt", ReadPromptInput},
      {"arguments", ReadArguments}, {"gzip", ReadGzipInput},
  };
  TinyTokenizer();  // made before anybody counts memory
  return kTargets;
}

void RunTarget(const Target& target, std::span<const uint8_t> input) {
  const PeakMeter meter;
  try {
    target.read(input);
  } catch (const Error& error) {
    if (error.code() != kUsage) throw;
    Require(std::string_view(error.what()).size() > 0, "an error without a message");
  }
  const size_t peak = meter.peak(), limit = MemoryLimit(input.size());
  if (peak > limit)
    throw std::logic_error(fmt::format("{} bytes of input took {} bytes of memory, more than {}",
                                       input.size(), peak, limit));
}

}  // namespace lab::fuzz
