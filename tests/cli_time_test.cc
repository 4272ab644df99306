// lab forward --time: where the time goes.
#include <set>

#include "tests/cli_run.h"

namespace lab::cli_test {
namespace {

const Strings kTimed = {"forward", "--model", "tiny", "--tokens", "1,2,3", "-n", "4"};

std::vector<Json> TimedRecords(const Strings& more, std::string_view kind) {
  return OfKind(Records(RunLab(kTimed + more + Strings{"--format", "jsonl"}).out), kind);
}

TEST(CliTime, TextHasATableForEachPhase) {
  const Result r = RunLab(kTimed + Strings{"--time"});
  EXPECT_EQ(r.code, 0) << r.err;
  ExpectHas(r.out, {"prefill: 3 tokens in", "decode: 3 tokens in", "the steps explain", "GB/s",
                    "%roof", "gate_up_swiglu", "q_proj", "lm_head"});
  EXPECT_EQ(RunLab(kTimed).out.find("the steps explain"), std::string::npos);
}

// 28 layers; the head once in the prefill and once for each decoded token.
TEST(CliTime, EveryStepOfEveryLayerIsCounted) {
  std::map<std::pair<std::string, std::string>, Json> times;
  for (const Json& t : TimedRecords({"--time"}, "time")) times[{t["phase"], t["step"]}] = t;
  const auto calls = [&](const char* phase, const char* step) {
    return times.at({phase, step})["calls"].get<int>();
  };
  EXPECT_EQ(calls("prefill", "down_proj"), 28);
  EXPECT_EQ(calls("decode", "down_proj"), 3 * 28);
  EXPECT_EQ(calls("prefill", "lm_head"), 1);
  EXPECT_EQ(calls("decode", "rms_norm"), 3 * (2 * 28 + 1));
  EXPECT_EQ(calls("decode", "quantize"), 3 * (4 * 28 + 1));  // one for q, k, v; o; gate, up; down
  const auto bytes = [&](const char* phase) {
    return times.at({phase, "down_proj"})["bytes"].get<double>();
  };
  EXPECT_GT(bytes("decode"), 2.9 * bytes("prefill") / 2);  // the weights once a pass
  EXPECT_LT(bytes("decode"), 3.1 * bytes("prefill"));
}

// Two operations a weight, and as many times in decoding as tokens were decoded; the roof is at
// least the time that the operations take at the peak rate, so it is above 0.
TEST(CliTime, EveryMatrixIsComparedWithTheRoofline) {
  std::map<std::pair<std::string, std::string>, Json> times;
  for (const Json& t : TimedRecords({"--time"}, "time")) times[{t["phase"], t["step"]}] = t;
  const Json& down = times.at({"decode", "down_proj"});
  EXPECT_EQ(down["ops"], times.at({"prefill", "down_proj"})["ops"]);  // 3 tokens each
  EXPECT_EQ(down["ops"].get<double>(),
            2 * times.at({"decode", "gate_up_swiglu"})["ops"].get<double>() / 4);
  for (const auto& [at, t] : times) {
    EXPECT_GE(t["roof_seconds"], 0.0) << at.second;
    EXPECT_EQ(t["roof_seconds"] > 0, t["bytes"] > 0) << at.second;
  }
}

// No claim about speed: what the steps took cannot be more than the pass around them.
TEST(CliTime, StepsLieWithinTheirPhase) {
  const std::vector<Json> phases = TimedRecords({"--time"}, "phase");
  ASSERT_EQ(phases.size(), 2u);
  for (const Json& phase : phases) {
    EXPECT_EQ(phase["tokens"], 3);
    EXPECT_GT(phase["in_steps"], 0.0);
    EXPECT_LE(phase["in_steps"], phase["seconds"]);
  }
  EXPECT_TRUE(TimedRecords({}, "phase").empty());
}

TEST(CliTime, AFileIsAChromeTraceWithEveryStepInOrder) {
  const TempDir dir;
  const Result r = RunLab(kTimed + Strings{"--time=" + (dir / "t.json")});
  EXPECT_EQ(r.code, 0) << r.err;
  const Json events = Json::parse(ReadBytes(dir / "t.json"))["traceEvents"];
  size_t calls = 0;
  for (const Json& t : TimedRecords({"--time"}, "time")) calls += t["calls"].get<size_t>();
  EXPECT_EQ(events.size(), calls);
  double end = 0;
  for (const Json& e : events) {
    EXPECT_EQ(e["ph"], "X");
    EXPECT_GE(e["ts"].get<double>(), end - 1e-3);
    end = e["ts"].get<double>() + e["dur"].get<double>();
  }
  EXPECT_EQ(RunLab(kTimed + Strings{"--time=" + (dir / "none/t.json")}).code, 2);
}

TEST(CliTime, ChangesNoLogit) {
  EXPECT_EQ(TopOf(RunLab(kTimed + Strings{"--format", "jsonl"})),
            TopOf(RunLab(kTimed + Strings{"--format", "jsonl", "--time"})));
}

}  // namespace
}  // namespace lab::cli_test
