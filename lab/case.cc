#include "lab/case.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <sstream>

#include "lab/error.h"
#include "lab/names.h"
#include "lab/output.h"
#include "lab/safetensors.h"
#include "lab/sha256.h"
#include "lab/toml_reader.h"

namespace lab {
namespace {

constexpr int64_t kSchema = 1;

// The fields of a case that hold floats or sizes, by their name in the file.
constexpr std::pair<const char*, std::vector<float> Case::*> kFloatFields[] = {
    {"x", &Case::x},
    {"x2", &Case::x2},
    {"k", &Case::k},
    {"v", &Case::v},
    {"vector", &Case::vector}};
constexpr std::pair<const char*, size_t Case::*> kSizeFields[] = {
    {"tokens", &Case::tokens},
    {"heads", &Case::heads},
    {"kv_heads", &Case::kv_heads},
    {"head_dim", &Case::head_dim},
    {"first_position", &Case::first_position}};
constexpr std::pair<const char*, float Case::*> kFloatParameters[] = {
    {"rope_base", &Case::rope_base}, {"eps", &Case::eps}};
constexpr std::pair<const char*, WeightView Case::*> kWeightFields[] = {{"w", &Case::w},
                                                                        {"w_up", &Case::w_up}};

std::string Folder(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

// Held while the two files of a case file are put in place. Where a file system has no such locks,
// the hash in the TOML file still shows two that do not belong together.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder)
      : fd_(open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (fd_ >= 0) flock(fd_, LOCK_EX);
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  ~FolderLock() {
    if (fd_ >= 0) close(fd_);
  }

 private:
  int fd_;
};

std::string FileName(const std::string& path) {
  return path.substr(Folder(path).size());
}

// Collects tensors; equal ones are stored once, under the name they came with first.
class TensorStore {
 public:
  std::string Put(const std::string& name, const char* dtype, std::vector<size_t> shape,
                  std::span<const uint8_t> data) {
    const auto [it, is_new] = name_of_.emplace(dtype + std::string(data.begin(), data.end()), name);
    if (is_new) entries_.push_back({name, dtype, std::move(shape), data});
    return it->second;
  }
  std::span<const SafetensorsEntry> entries() const { return entries_; }

 private:
  std::map<std::string, std::string> name_of_;
  std::vector<SafetensorsEntry> entries_;
};

toml::table WriteCase(const Case& c, TensorStore& tensors) {
  toml::table t;
  t.insert("name", c.name);
  t.insert("op", std::string(NameOf(c.op)));
  t.insert("taps", toml::array{c.input_tap, c.output_tap});
  for (const auto& [field, member] : kSizeFields)
    if (c.*member) t.insert(field, static_cast<int64_t>(c.*member));
  for (const auto& [field, member] : kFloatParameters)
    if (c.*member != 0) t.insert(field, static_cast<double>(c.*member));
  if (c.exact) t.insert("exact", true);
  if (!c.ids.empty()) {
    toml::array ids;
    for (const int32_t id : c.ids) ids.push_back(static_cast<int64_t>(id));
    t.insert("ids", ids);
  }
  for (const auto& [field, member] : kFloatFields) {
    const std::vector<float>& values = c.*member;
    if (values.empty()) continue;
    t.insert(field, tensors.Put(c.name + "." + field, "F32", {values.size()},
                                {reinterpret_cast<const uint8_t*>(values.data()),
                                 values.size() * sizeof(float)}));
  }
  for (const auto& [field, member] : kWeightFields) {
    const WeightView& w = c.*member;
    if (!w.data) continue;
    const std::string name =
        tensors.Put(c.name + "." + field, "U8", {w.rows, w.row_bytes()}, {w.data, w.bytes()});
    t.insert(field, toml::table{{"tensor", name},
                                {"type", std::string(InfoOf(w.type).name)},
                                {"rows", static_cast<int64_t>(w.rows)},
                                {"cols", static_cast<int64_t>(w.cols)}});
  }
  return t;
}

class CaseReader : TomlReader {
 public:
  explicit CaseReader(const std::string& path) : TomlReader(path) {}

  CaseFile Read() {
    if (root_["schema"].value_or(int64_t{0}) != kSchema) Bad(root_, "schema is not {}", kSchema);
    CaseFile file;
    file.path = path_;
    file.model = root_["model"].value_or(std::string());
    file.sha256 = root_["sha256"].value_or(std::string());
    file.prompt = root_["prompt"].value_or(std::string());
    file.layer = static_cast<size_t>(std::max<int64_t>(0, root_["layer"].value_or(int64_t{0})));
    file.ids = Ids(root_);
    const std::string data = root_["data"].value_or(std::string());
    if (data.empty() || data.find('/') != std::string::npos || data[0] == '.')
      Bad(root_, "data must name a file in the same folder");
    std::error_code ignored;
    if (std::filesystem::is_symlink(Folder(path_) + data, ignored))
      Bad(root_, "data '{}' is a symbolic link, which may lead anywhere; put the file itself there",
          Printable(data));
    tensors_ = std::make_unique<Safetensors>(Folder(path_) + data);
    const auto hash = root_["data_sha256"].value<std::string>();
    if (hash && *hash != Sha256(tensors_->bytes()))
      Bad(root_, "{} is not the data file of this one: its sha256 is another; capture both again",
          Printable(data));
    const toml::array* cases = root_["case"].as_array();
    if (!cases || cases->empty()) Bad(root_, "there is no [[case]]");
    for (const toml::node& node : *cases) {
      if (!node.is_table()) Bad(node, "a case is not a table");
      file.cases.push_back(ReadCase(*node.as_table()));
    }
    return file;
  }

 private:
  std::vector<int32_t> Ids(const toml::table& t) const {
    std::vector<int32_t> ids;
    const toml::array* list = t["ids"].as_array();
    for (size_t i = 0; list && i < list->size(); ++i) {
      const auto id = (*list)[i].value<int64_t>();
      if (!id || *id < 0 || *id > INT32_MAX) Bad(*list, "ids holds something that is no token id");
      ids.push_back(static_cast<int32_t>(*id));
    }
    return ids;
  }

  const SafetensorsEntry& Tensor(const toml::table& t, const std::string& name,
                                 std::string_view dtype) const {
    const SafetensorsEntry* entry = tensors_->Find(name);
    if (!entry) Bad(t, "the data file has no tensor '{}'", Printable(name));
    if (entry->dtype != dtype)
      Bad(t, "tensor '{}' is {}, not {}", Printable(name), entry->dtype, dtype);
    return *entry;
  }

  size_t Size(const toml::table& t, const char* key) const {
    const int64_t value = t[key].value_or(int64_t{0});
    if (value < 0 || value > (int64_t{1} << 31)) Bad(t, "{} is {}", key, value);
    return static_cast<size_t>(value);
  }

  void ReadWeight(Case& c, const toml::table& t, const char* field,
                  WeightView Case::*member) const {
    const toml::table* w = t[field].as_table();
    if (!w) return;
    const std::string type_name = (*w)["type"].value_or(std::string());
    const auto type = std::find_if(kBlockTypes.begin(), kBlockTypes.end(),
                                   [&](const auto& i) { return i.name == type_name; });
    if (type == kBlockTypes.end()) Bad(*w, "unknown block type '{}'", Printable(type_name));
    const SafetensorsEntry& entry = Tensor(*w, (*w)["tensor"].value_or(std::string()), "U8");
    WeightView view = {type->type, nullptr, Size(*w, "rows"), Size(*w, "cols")};
    if (view.cols % type->elements != 0 || view.bytes() != entry.data.size() || view.bytes() == 0)
      Bad(*w, "{} rows of {} {} values do not fit the {} bytes of tensor '{}'", view.rows,
          view.cols, type->name, entry.data.size(), entry.name);
    c.owned.push_back(std::make_shared<std::vector<uint8_t>>(entry.data.begin(), entry.data.end()));
    view.data = c.owned.back()->data();
    c.*member = view;
  }

  Case ReadCase(const toml::table& t) const {
    Case c;
    c.name = t["name"].value_or(std::string());
    if (c.name.empty()) Bad(t, "a case has no name");
    c.op = ParseOp(t["op"].value_or(std::string()),
                   fmt::format("{}: case {}: op", path_, Printable(c.name)));
    c.input_tap = t["taps"][0].value_or(std::string("-"));
    c.output_tap = t["taps"][1].value_or(std::string("-"));
    for (const auto& [field, member] : kSizeFields) c.*member = Size(t, field);
    for (const auto& [field, member] : kFloatParameters)
      c.*member = static_cast<float>(t[field].value_or(0.0));
    c.exact = t["exact"].value_or(false);
    c.ids = Ids(t);
    for (const auto& [field, member] : kFloatFields) {
      const auto name = t[field].value<std::string>();
      if (!name) continue;
      const SafetensorsEntry& entry = Tensor(t, *name, "F32");
      (c.*member).resize(entry.elements());
      std::memcpy((c.*member).data(), entry.data.data(), entry.data.size());
    }
    for (const auto& [field, member] : kWeightFields) ReadWeight(c, t, field, member);
    if (const std::string problem = ShapeProblem(c); !problem.empty())
      Bad(t, "case '{}': {}", Printable(c.name), problem);
    return c;
  }

  std::unique_ptr<Safetensors> tensors_;
};

}  // namespace

std::string ShapeProblem(const Case& c) {
  const auto needs = [](bool good, const char* what) {
    return good ? std::string() : std::string(what);
  };
  const bool rows = c.tokens > 0 && !c.x.empty() && c.x.size() % c.tokens == 0;
  switch (c.op) {
    case Op::q4k_dequant:
      return needs(c.w.data && c.w.type == BlockType::Q4_K, "needs w of type Q4_K");
    case Op::q6k_dequant:
      return needs(c.w.data && c.w.type == BlockType::Q6_K, "needs w of type Q6_K");
    case Op::embed:
      return needs(c.w.data && !c.ids.empty() && c.ids.size() == c.tokens &&
                       std::all_of(c.ids.begin(), c.ids.end(),
                                   [&](int32_t id) { return static_cast<size_t>(id) < c.w.rows; }),
                   "needs w and for every token an id below its rows");
    case Op::rms_norm:
      return needs(rows && c.vector.size() == c.n(), "needs x [tokens, n] and vector [n]");
    case Op::quantize:
      return needs(rows && c.n() % 32 == 0, "needs x [tokens, n] with n a multiple of 32");
    case Op::matvec:
    case Op::down_proj:
      return needs(c.w.data && rows && c.n() == c.w.cols &&
                       (c.vector.empty() || c.vector.size() == c.w.rows),
                   "needs w, x [tokens, cols] and vector [rows] or none");
    case Op::gate_up:
    case Op::gate_up_swiglu:
      return needs(c.w.data && c.w_up.data && rows && c.n() == c.w.cols &&
                       c.w.rows == c.w_up.rows && c.w.cols == c.w_up.cols,
                   "needs w, w_up of the same shape and x [tokens, cols]");
    case Op::rope:
      return needs(rows && c.head_dim > 0 && c.head_dim % 2 == 0 && c.heads > 0 &&
                       c.n() == c.heads * c.head_dim && c.rope_base > 0,
                   "needs x [tokens, heads * head_dim], an even head_dim and rope_base");
    case Op::gqa_attention:
      return needs(rows && c.kv_heads > 0 && c.heads > 0 && c.heads % c.kv_heads == 0 &&
                       c.head_dim > 0 && c.n() == c.heads * c.head_dim &&
                       c.k.size() == c.v.size() &&
                       c.k.size() == (c.first_position + c.tokens) * c.kv_heads * c.head_dim,
                   "needs x [tokens, heads * head_dim], k and v [first_position + tokens, kv_heads "
                   "* head_dim]");
    case Op::residual_add:
    case Op::swiglu:
      return needs(rows && c.x2.size() == c.x.size(), "needs x and x2 of the same size");
    case Op::silu:
      return needs(rows, "needs x [tokens, n]");
  }
  return "unknown op";
}

bool Chosen(const GlobList& globs, const Case& c) {
  // Without a dot find gives npos, and npos + 1 is 0: the whole name.
  const std::string_view in_layer = std::string_view(c.name).substr(c.name.find('.') + 1);
  return globs.Match(c.name) || globs.Match(in_layer) || globs.Match(NameOf(c.op));
}

void ChooseCases(std::vector<Case>& cases, const std::string& globs, std::string_view flag) {
  const GlobList list(globs);
  if (std::any_of(cases.begin(), cases.end(), [&](const Case& c) { return Chosen(list, c); })) {
    std::erase_if(cases, [&](const Case& c) { return !Chosen(list, c); });
    return;
  }
  std::vector<std::string_view> names;
  for (const Case& c : cases) names.insert(names.end(), {c.name, NameOf(c.op)});
  throw Error(kNotComparable, fmt::format("{} {}: no case has such a name or op{}", flag,
                                          Printable(globs), DidYouMean(globs, names)));
}

CaseFile ReadCaseFile(const std::string& path) {
  return CaseReader(path).Read();
}

void WriteCaseFile(const std::string& stem, const CaseFile& file) {
  const std::string data = stem + ".safetensors";
  OutputFile toml_out(stem + ".toml"), data_out(data);
  TensorStore tensors;
  toml::array cases, ids;
  for (const Case& c : file.cases) cases.push_back(WriteCase(c, tensors));
  for (const int32_t id : file.ids) ids.push_back(static_cast<int64_t>(id));
  WriteSafetensors(data_out, tensors.entries(), {{"model", file.model}, {"sha256", file.sha256}});
  const FolderLock lock(Folder(stem));
  data_out.Commit();
  const toml::table root{{"schema", kSchema},
                         {"model", file.model},
                         {"sha256", file.sha256},
                         {"prompt", file.prompt},
                         {"ids", ids},
                         {"layer", static_cast<int64_t>(file.layer)},
                         {"data", FileName(data)},
                         {"data_sha256", Sha256(Safetensors(data).bytes())},
                         {"case", cases}};
  std::ostringstream text;
  text << root << "\n";
  toml_out.Write(text.str());
  toml_out.Commit();
}

void CheckCaseFileWritable(const std::string& stem) {
  const OutputFile toml(stem + ".toml"), data(stem + ".safetensors");
}

std::string CasesFolder(const std::string& folder) {
  const char* env = std::getenv("LAB_CASES");
  if (!folder.empty()) return folder;
  if (env && *env) return env;
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  const auto installed = program.parent_path().parent_path() / "share/lab/cases";
  const bool here = std::filesystem::is_directory("cases", error);
  return !here && std::filesystem::is_directory(installed, error) ? installed.string() : "cases";
}

std::vector<std::string> FindCaseFiles(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error))
    if (entry.path().extension() == ".toml") paths.push_back(entry.path().string());
  if (error)
    Fail("{}: cannot read the folder of cases: {}; --cases or $LAB_CASES may name another", folder,
         error.message());
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::vector<Case> ReadCases(const std::string& folder) {
  std::vector<Case> cases;
  for (const std::string& path : FindCaseFiles(folder)) {
    CaseFile file = ReadCaseFile(path);
    std::move(file.cases.begin(), file.cases.end(), std::back_inserter(cases));
  }
  return cases;
}

}  // namespace lab
