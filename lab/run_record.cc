#include "lab/run_record.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "lab/error.h"
#include "lab/gzip.h"
#include "lab/run_readers.h"
#include "model/file_bytes.h"
#include "reference/dequant_ref.h"

namespace lab {
namespace {

struct RunReader {
  std::string_view format;
  bool (*is)(const RunFile&);
  RunRecord (*read)(const RunFile&);
};
constexpr RunReader kReaders[] = {
#define READER(format, Name) {format, Is##Name, Read##Name},
#include "lab/run_readers.def"
#undef READER
};

template <class T>
T Load(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

constexpr size_t kMostUnpacked = size_t{1} << 30;

RunFile Open(const std::string& path, const NameMap& names) {
  auto file = std::make_shared<const FileBytes>(FileBytes::Map(path));
  if (IsGzip(file->bytes()))
    file = std::make_shared<const FileBytes>(
        FileBytes::FromMemory(path, Unzip(path, file->bytes(), kMostUnpacked)));
  const auto bytes = file->bytes();
  return {path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file, names};
}

const RunReader* ReaderOf(const RunFile& file) {
  const auto it = std::find_if(std::begin(kReaders), std::end(kReaders),
                               [&](const RunReader& r) { return r.is(file); });
  return it == std::end(kReaders) ? nullptr : it;
}

}  // namespace

std::string_view NameOf(StdKind kind) {
  return kind == StdKind::population ? "population" : "sample";
}

Figures FiguresOf(const Stats& s) {
  const auto exact = [](double value) { return Figure{value, 0}; };
  Figures f;
  f.n = s.n, f.nan = s.nan, f.inf = s.inf, f.zeros = s.zeros, f.argmax = s.argmax;
  f.min = exact(s.min), f.max = exact(s.max), f.mean = exact(s.mean), f.std = exact(s.std);
  f.rms = exact(s.rms), f.absmax = exact(s.absmax), f.l2 = exact(s.l2);
  f.sum = exact(s.mean * static_cast<double>(s.n));
  return f;
}

double StoredRow::At(size_t i) const {
  const uint8_t* at = bytes.data() + i * BytesOf(type);
  switch (type) {
    case StoredType::f64:
      return Load<double>(at);
    case StoredType::f32:
      return Load<float>(at);
    case StoredType::f16:
      return HalfToFloat(Load<uint16_t>(at));
    case StoredType::bf16:
      return std::bit_cast<float>(static_cast<uint32_t>(Load<uint16_t>(at)) << 16);
  }
  return std::numeric_limits<double>::quiet_NaN();
}

std::vector<double> StoredRow::Read() const {
  std::vector<double> values(size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = At(i);
  return values;
}

void TokenList::Add(size_t first, size_t count) {
  if (count == 0) return;
  if (!ranges_.empty() && ranges_.back().second == first)
    ranges_.back().second += count;
  else
    ranges_.emplace_back(first, first + count);
}

size_t TokenList::size() const {
  size_t n = 0;
  for (const auto& [first, end] : ranges_) n += end - first;
  return n;
}

std::vector<size_t> TokenList::Read() const {
  std::vector<size_t> tokens;
  tokens.reserve(size());
  for (const auto& [first, end] : ranges_)
    for (size_t t = first; t < end; ++t) tokens.push_back(t);
  return tokens;
}

void ImportReport::Unexplained(std::string what) {
  if (++unexplained <= 5) first_of_them.push_back(std::move(what));
}

void RunRecord::AddRow(const Place& place, const StoredRow& row) {
  const std::vector<double> values = row.Read();
  TokenRecord& record = tokens[place];
  record.row = row;
  record.figures = FiguresOf(ComputeStats(values.data(), values.size()));
}

bool RunRecord::has_tensors() const {
  return std::any_of(tokens.begin(), tokens.end(), [](const auto& t) { return t.second.row; });
}

std::optional<Tap> FindTap(std::string_view name) {
  const auto it =
      std::find_if(Taps().begin(), Taps().end(), [&](const TapInfo& t) { return t.name == name; });
  if (it == Taps().end()) return std::nullopt;
  return static_cast<Tap>(it - Taps().begin());
}

RunRecord ReadRun(const std::string& path) {
  return ReadRun(path, NameMap::BuiltIn());
}

RunRecord ReadRun(const std::string& path, const NameMap& names) {
  const RunFile file = Open(path, names);
  const RunReader* reader = ReaderOf(file);
  if (!reader) {
    std::vector<std::string_view> formats;
    for (const RunReader& r : kReaders) formats.push_back(r.format);
    Fail("{}: no trace or dump that lab knows; it reads: {}", path, fmt::join(formats, ", "));
  }
  RunRecord run = reader->read(file);
  run.header.path = path;
  run.header.format = reader->format;
  return run;
}

bool IsRunFile(const std::string& path) {
  return ReaderOf(Open(path, NameMap::BuiltIn())) != nullptr;
}

}  // namespace lab
