// lab inspect: what a model file, a trace or a dump holds.
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "lab/cli.h"
#include "lab/error.h"
#include "lab/inspect_run.h"
#include "lab/names.h"
#include "lab/output.h"
#include "lab/run_record.h"
#include "lab/table.h"
#include "model/apr.h"
#include "model/qwen2.h"

namespace lab {
namespace {

using Json = nlohmann::ordered_json;

std::string ShapeText(const WeightTensor& t) {
  std::string text;
  for (uint32_t d = t.n_dims; d-- > 0;)
    text += (text.empty() ? "" : " x ") + std::to_string(t.dims[d]);
  return text;
}

// Whether the checksum at the end of an APR file fits; "none" for a file without one.
std::string_view FooterName(const WeightFile& file) {
  switch (CheckAprFooter(file)) {
    case AprFooter::right:
      return "right";
    case AprFooter::wrong:
      return "wrong";
    case AprFooter::absent:
      return "none";
  }
  return "none";
}

std::string FooterText(const WeightFile& file) {
  const std::string_view footer = FooterName(file);
  if (footer == "none") return "";
  return footer == "right" ? "checksum at the end: right\n"
                           : "checksum at the end: WRONG, bytes of this file have changed since it "
                             "was written\n";
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

std::map<std::string, TypeTotal> TypeTotals(const WeightFile& file) {
  std::map<std::string, TypeTotal> totals;
  for (const WeightTensor& t : file.tensors()) {
    TypeTotal& total = totals[t.type];
    ++total.tensors;
    total.elements += t.elements();
    total.bytes += t.bytes;
  }
  return totals;
}

std::string ToText(const WeightFile& file, const std::optional<uint64_t>& per_token,
                   const std::string& why) {
  const uint64_t size = file.file().bytes().size();
  std::string out =
      fmt::format("{}\n{}, {} bytes ({:.3f} GB), alignment {}, data from offset {}\n{}\nmetadata\n",
                  file.file().name(), file.format(), size, static_cast<double>(size) * 1e-9,
                  file.alignment(), file.data_offset(), FooterText(file));
  size_t width = 0;
  for (const MetaKeyValue& kv : file.metadata()) width = std::max(width, Printable(kv.key).size());
  for (const MetaKeyValue& kv : file.metadata())
    out += fmt::format("  {:<{}}  {}\n", Printable(kv.key), width, kv.value.ToText());

  Table tensors({"tensor", "shape", "type", "bytes", "offset"});
  for (const WeightTensor& t : file.tensors())
    tensors.Add({Printable(t.spelling), ShapeText(t), t.type, std::to_string(t.bytes),
                 std::to_string(t.offset)});
  out += "\n" + tensors.ToText();

  Table types({"type", "tensors", "weights", "bytes", "bits/weight"});
  for (const auto& [name, total] : TypeTotals(file))
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

std::string ToJsonl(const WeightFile& file, const std::optional<uint64_t>& per_token) {
  const auto line = [](const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  };
  std::string out = line({{"kind", "file"},
                          {"path", file.file().name()},
                          {"format", file.format()},
                          {"bytes", file.file().bytes().size()},
                          {"alignment", file.alignment()},
                          {"data_offset", file.data_offset()},
                          {"footer", FooterName(file)}});
  for (const MetaKeyValue& kv : file.metadata()) {
    Json value = kv.value.ToText();
    if (const auto* n = std::get_if<uint64_t>(&kv.value.value)) value = *n;
    if (const auto* n = std::get_if<int64_t>(&kv.value.value)) value = *n;
    if (const auto* n = std::get_if<double>(&kv.value.value)) value = *n;
    if (const auto* n = std::get_if<bool>(&kv.value.value)) value = *n;
    if (const auto* n = std::get_if<std::string_view>(&kv.value.value)) value = *n;
    out += line({{"kind", "metadata"}, {"key", kv.key}, {"value", value}});
  }
  for (const WeightTensor& t : file.tensors()) {
    Json shape = Json::array();
    for (uint32_t d = t.n_dims; d-- > 0;) shape.push_back(t.dims[d]);
    out += line({{"kind", "tensor"},
                 {"name", t.spelling},
                 {"gguf_name", t.name},
                 {"shape", shape},
                 {"type", t.type},
                 {"bytes", t.bytes},
                 {"offset", t.offset}});
  }
  for (const auto& [name, total] : TypeTotals(file))
    out += line({{"kind", "type"},
                 {"type", name},
                 {"tensors", total.tensors},
                 {"weights", total.elements},
                 {"bytes", total.bytes}});
  return out + line({{"kind", "summary"},
                     {"tensors", file.tensors().size()},
                     {"bytes_per_token", per_token ? Json(*per_token) : Json()}});
}

}  // namespace

int CmdInspect(int argc, char** argv) {
  std::string path, names, format;
  CLI::App app(
      "Of a model: metadata, tensors, a histogram of block types and the bytes read per decoded "
      "token.\n"
      "Of a trace or dump, own or foreign: what it says of the run, and whether its taps obey the "
      "laws that\ntie them together (exit 1 if not).",
      "lab inspect");
  app.add_option(
         "file", path,
         "a GGUF, APR or safetensors file, a synthetic shape, a trace or a dump; default: the "
         "model 'lab forward' would take")
      ->type_name("FILE");
  app.add_option("--names", names, "what the tensors of a dump are called, as TOML; as in lab diff")
      ->type_name("F.toml");
  AddFormat(app, format);
  app.footer("Example:\n  lab inspect tiny\n  lab inspect run.jsonl");
  if (!ParseArgs(app, argc, argv)) return kPass;
  const Format parsed = ParseFormat(format);
  std::error_code ignored;
  if (std::filesystem::is_regular_file(path, ignored) && IsRunFile(path))
    return InspectRun(path, names, parsed);
  if (!names.empty()) Fail("--names: means nothing for a model");
  const std::string name = ResolveModel(path);
  const WeightFile file = ReadWeightFile(OpenModelBytes(name));
  std::string why;
  const std::optional<uint64_t> per_token = BytesPerToken(name, &why);
  PrintOut(parsed == Format::jsonl ? ToJsonl(file, per_token) : ToText(file, per_token, why));
  return kPass;
}

}  // namespace lab
