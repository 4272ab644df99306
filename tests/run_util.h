#pragma once
// Runs made by hand or from tiny, for the tests of lab diff.
#include <string>
#include <utility>
#include <vector>

#include "lab/method_error.h"
#include "lab/run_record.h"

namespace lab {

inline const std::vector<int32_t> kRunIds = {87, 104, 97, 300, 5};

inline const Qwen2& TinyModel() {
  static const Qwen2 model = OpenModel("tiny");
  return model;
}

/// A row of values that the record owns.
inline void PutRow(RunRecord& run, const Place& place, const std::vector<double>& values) {
  auto kept = std::make_shared<const std::vector<double>>(values);
  const auto* bytes = reinterpret_cast<const uint8_t*>(kept->data());
  run.AddRow(place, {StoredType::f64, {bytes, values.size() * sizeof(double)}});
  run.owners.push_back(std::move(kept));
}

/// The same run without its values.
inline RunRecord StatisticsOf(RunRecord run) {
  for (auto& [place, record] : run.tokens) record.row.reset();
  return run;
}

/// Tiny's run over kRunIds, made once for each contract.
inline const RunRecord& TinyRun(Backend backend = Backend::oracle,
                                RunContract contract = {Contract::f32, KvType::f32}) {
  static std::map<std::pair<Backend, RunContract>, RunRecord> runs;
  auto it = runs.find({backend, contract});
  if (it == runs.end())
    it = runs.emplace(std::pair(backend, contract),
                      RecordPass(TinyModel(), backend, contract, kRunIds, 1))
             .first;
  return it->second;
}

}  // namespace lab
