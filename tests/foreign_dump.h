#pragma once
// Dumps that other programs might have written, as entries to change.
#include <map>
#include <string>
#include <vector>

#include "lab/run_record.h"
#include "lab/safetensors.h"
#include "tests/golden.h"
#include "tests/test_util.h"

namespace lab {

struct DumpTensor {
  std::string dtype;
  std::vector<size_t> shape;
  std::vector<uint8_t> data;
};
using Dump = std::map<std::string, DumpTensor>;

template <class T>
std::vector<uint8_t> BytesOfValues(const std::vector<T>& values) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  return {bytes, bytes + values.size() * sizeof(T)};
}

inline DumpTensor FloatTensor(std::vector<size_t> shape, const std::vector<float>& values) {
  return {"F32", std::move(shape), BytesOfValues(values)};
}

inline std::string WriteDump(const std::string& path, const Dump& dump,
                             const std::map<std::string, std::string>& metadata = {}) {
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, t] : dump) entries.push_back({name, t.dtype, t.shape, t.data});
  OutputFile out(path);
  WriteSafetensors(out, entries, metadata);
  out.Commit();
  return path;
}

/// The dump of tests/make_foreign_golden.py, with one of its mistakes or ("") none.
inline Dump ForeignDump(const std::string& mistake) {
  const Safetensors file(GoldenPath("tiny.foreign.safetensors"));
  Dump dump;
  for (const bool wrong : {false, true})
    for (const SafetensorsEntry& e : file.entries()) {
      const size_t slash = e.name.find('/');
      if ((slash != std::string::npos) != wrong) continue;
      if (wrong && e.name.substr(0, slash) != mistake) continue;
      dump[wrong ? e.name.substr(slash + 1) : e.name] = {
          e.dtype, e.shape, {e.data.begin(), e.data.end()}};
    }
  return dump;
}

}  // namespace lab
