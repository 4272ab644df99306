#pragma once
// Readers of the golden data, and what several tests compare with it.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "lab/trace.h"
#include "model/forward.h"
#include "tests/paths.h"

namespace lab {

inline std::string GoldenPath(const std::string& name) {
  return std::string(kGoldenDir) + "/" + name;
}

/// What a golden file that is packed with gzip holds.
inline std::string UnzippedGolden(const std::string& name) {
  const std::string command = "gzip -dc '" + GoldenPath(name) + "'";
  FILE* pipe = popen(command.c_str(), "r");
  EXPECT_TRUE(pipe) << command;
  std::string text;
  std::vector<char> buffer(65536);
  while (const size_t n = fread(buffer.data(), 1, buffer.size(), pipe))
    text.append(buffer.data(), n);
  EXPECT_EQ(pclose(pipe), 0) << command;
  return text;
}

inline std::vector<nlohmann::json> ReadJsonLines(const std::string& path) {
  std::ifstream in(path);
  EXPECT_TRUE(in) << path;
  std::vector<nlohmann::json> records;
  for (std::string line; std::getline(in, line);) records.push_back(nlohmann::json::parse(line));
  return records;
}

/// Runs ids in one go and records every tap, token and the top 10.
template <class T>
Trace RecordRun(const Qwen2& model, Backend backend, const std::vector<int32_t>& ids, int threads,
                Contract contract = Contract::f32) {
  Trace trace;
  trace.header.ids = ids;
  TraceRecorder<T> recorder(trace, TapFilter({}, model.config.layers), 10, threads);
  Forward<T> forward(model, RowSet(backend, contract), DefaultKv(contract), threads, ids.size());
  forward.Run(ids, &recorder);
  return trace;
}

/// Every statistic of the golden file within `tolerance` relative (means: of the std), every golden
/// logit within `logit_tolerance` and its id at the same rank.
inline void ExpectMatchesGolden(const Trace& trace, const std::vector<nlohmann::json>& golden,
                                double tolerance, double logit_tolerance) {
  std::map<std::tuple<std::string, int, size_t>, const Stats*> ours;
  for (const TapRecord& r : trace.taps)
    ours[{std::string(InfoOf(r.tap).name), r.layer, r.token}] = &r.stats;
  std::map<size_t, const TopRecord*> tops;
  for (const TopRecord& t : trace.tops) tops[t.token] = &t;

  size_t taps = 0, logits = 0;
  for (const nlohmann::json& g : golden) {
    if (g["kind"] == "tap") {
      const int layer = g["layer"].is_null() ? kNoLayer : g["layer"].get<int>();
      const auto it = ours.find({g["tap"], layer, g["token"]});
      ASSERT_NE(it, ours.end()) << g;
      const Stats& s = *it->second;
      EXPECT_LE(std::abs(s.mean - g["mean"].get<double>()), tolerance * g["std"].get<double>())
          << g;
      EXPECT_LE(std::abs(s.std / g["std"].get<double>() - 1), tolerance) << g;
      EXPECT_LE(std::abs(s.absmax / g["absmax"].get<double>() - 1), tolerance) << g;
      EXPECT_LE(std::abs(s.l2 / g["l2"].get<double>() - 1), tolerance) << g;
      ++taps;
    }
    if (g["kind"] == "top") {
      const auto it = tops.find(g["token"].get<size_t>());
      ASSERT_NE(it, tops.end()) << g;
      for (size_t i = 0; i < g["ids"].size(); ++i, ++logits) {
        EXPECT_EQ(it->second->ids.at(i), g["ids"][i].get<int32_t>()) << g;
        EXPECT_LE(std::abs(it->second->logits.at(i) - g["logits"][i].get<double>()),
                  logit_tolerance)
            << g;
      }
    }
  }
  EXPECT_GT(taps, 0u);
  EXPECT_GT(logits, 0u);
}

/// Keeps the bits of every tap, token by token.
template <class T>
class BitRecorder : public TapSink<T> {
 public:
  bool Wants(Tap, int) const override { return true; }
  void OnTap(const TapView<T>& v) override {
    for (size_t t = 0; t < v.tokens; ++t) {
      const T* row = v.values + t * v.stride;
      values[{v.tap, v.layer, v.first_token + t}].assign(row, row + v.n);
    }
  }
  std::map<std::tuple<Tap, int, size_t>, std::vector<T>> values;
};

}  // namespace lab
