// lab inspect: what a model file, a trace or a dump holds.
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "lab/cli.h"
#include "lab/error.h"
#include "lab/inspect_run.h"
#include "lab/names.h"
#include "lab/output.h"
#include "lab/table.h"
#include "model/qwen2.h"

namespace lab {
namespace {

using Json = nlohmann::ordered_json;

std::string ShapeText(const GgufTensor& t) {
  std::string text;
  for (uint32_t d = t.n_dims; d-- > 0;)
    text += (text.empty() ? "" : " x ") + std::to_string(t.dims[d]);
  return text;
}

// Bytes per decoded token, or nothing when the file is no complete qwen2 model; `why` then says so.
std::optional<uint64_t> BytesPerToken(const std::string& name, std::string* why) {
  try {
    return OpenModel(name).BytesPerToken();
  } catch (const Error& error) {
    *why = error.what();
    return std::nullopt;
  }
}

struct TypeTotal {
  size_t tensors = 0;
  uint64_t elements = 0, bytes = 0;
};

std::map<std::string, TypeTotal> TypeTotals(const Gguf& gguf) {
  std::map<std::string, TypeTotal> totals;
  for (const GgufTensor& t : gguf.tensors()) {
    TypeTotal& total = totals[t.TypeName()];
    ++total.tensors;
    total.elements += t.elements();
    total.bytes += t.bytes;
  }
  return totals;
}

std::string ToText(const Gguf& gguf, const std::optional<uint64_t>& per_token,
                   const std::string& why) {
  const uint64_t size = gguf.file().bytes().size();
  std::string out = fmt::format(
      "{}\nGGUF version {}, {} bytes ({:.3f} GB), alignment {}, data from offset {}\n\nmetadata\n",
      gguf.file().name(), gguf.version(), size, static_cast<double>(size) * 1e-9, gguf.alignment(),
      gguf.data_offset());
  size_t width = 0;
  for (const GgufKeyValue& kv : gguf.metadata()) width = std::max(width, Printable(kv.key).size());
  for (const GgufKeyValue& kv : gguf.metadata())
    out += fmt::format("  {:<{}}  {}\n", Printable(kv.key), width, kv.value.ToText());

  Table tensors({"tensor", "shape", "type", "bytes", "offset"});
  for (const GgufTensor& t : gguf.tensors())
    tensors.Add({Printable(t.name), ShapeText(t), t.TypeName(), std::to_string(t.bytes),
                 std::to_string(t.offset)});
  out += "\n" + tensors.ToText();

  Table types({"type", "tensors", "weights", "bytes", "bits/weight"});
  for (const auto& [name, total] : TypeTotals(gguf))
    types.Add({name, std::to_string(total.tensors), std::to_string(total.elements),
               std::to_string(total.bytes),
               fmt::format("{:.3f}", 8.0 * static_cast<double>(total.bytes) /
                                         static_cast<double>(total.elements))});
  out += "\n" + types.ToText();
  if (per_token)
    return out + fmt::format("\nread for each decoded token: {} bytes ({:.3f} GB)\n", *per_token,
                             static_cast<double>(*per_token) * 1e-9);
  return out + fmt::format("\nnot a model that lab can run: {}\n", why);
}

std::string ToJsonl(const Gguf& gguf, const std::optional<uint64_t>& per_token) {
  const auto line = [](const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  };
  std::string out = line({{"kind", "file"},
                          {"path", gguf.file().name()},
                          {"version", gguf.version()},
                          {"bytes", gguf.file().bytes().size()},
                          {"alignment", gguf.alignment()},
                          {"data_offset", gguf.data_offset()}});
  for (const GgufKeyValue& kv : gguf.metadata()) {
    Json value = kv.value.ToText();
    if (const auto* n = std::get_if<uint64_t>(&kv.value.value)) value = *n;
    if (const auto* n = std::get_if<int64_t>(&kv.value.value)) value = *n;
    if (const auto* n = std::get_if<double>(&kv.value.value)) value = *n;
    if (const auto* n = std::get_if<bool>(&kv.value.value)) value = *n;
    if (const auto* n = std::get_if<std::string_view>(&kv.value.value)) value = *n;
    out += line({{"kind", "metadata"}, {"key", kv.key}, {"value", value}});
  }
  for (const GgufTensor& t : gguf.tensors()) {
    Json shape = Json::array();
    for (uint32_t d = t.n_dims; d-- > 0;) shape.push_back(t.dims[d]);
    out += line({{"kind", "tensor"},
                 {"name", t.name},
                 {"shape", shape},
                 {"type", t.TypeName()},
                 {"bytes", t.bytes},
                 {"offset", t.offset}});
  }
  for (const auto& [name, total] : TypeTotals(gguf))
    out += line({{"kind", "type"},
                 {"type", name},
                 {"tensors", total.tensors},
                 {"weights", total.elements},
                 {"bytes", total.bytes}});
  return out + line({{"kind", "summary"},
                     {"tensors", gguf.tensors().size()},
                     {"bytes_per_token", per_token ? Json(*per_token) : Json()}});
}

}  // namespace

int CmdInspect(int argc, char** argv) {
  std::string path, format;
  CLI::App app(
      "Of a model: metadata, tensors, a histogram of block types and the bytes read per decoded "
      "token.\n"
      "Of a trace or dump, own or foreign: what it says of the run, and whether its taps obey the "
      "laws "
      "that\ntie them together (exit 1 if not).",
      "lab inspect");
  app.add_option("file", path,
                 "a GGUF file, a synthetic shape, a trace or a dump; default: the model 'lab "
                 "forward' would take")
      ->type_name("FILE");
  AddFormat(app, format);
  app.footer("Example:\n  lab inspect tiny\n  lab inspect run.jsonl");
  if (!ParseArgs(app, argc, argv)) return kPass;
  const Format parsed = ParseFormat(format);
  std::error_code ignored;
  if (std::filesystem::is_regular_file(path, ignored) && IsRunFile(path))
    return InspectRun(path, parsed);
  const std::string name = ResolveModel(path);
  const Gguf gguf(OpenModelBytes(name));
  std::string why;
  const std::optional<uint64_t> per_token = BytesPerToken(name, &why);
  PrintOut(parsed == Format::jsonl ? ToJsonl(gguf, per_token) : ToText(gguf, per_token, why));
  return kPass;
}

}  // namespace lab
