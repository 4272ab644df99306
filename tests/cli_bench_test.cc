// lab bench: what it times, what it refuses, and what it says of it. Nothing here asks how fast.
#include "tests/cli_run.h"
#include "tests/paths.h"

namespace lab::cli_test {
namespace {

const Strings kBench = {"bench", "--model", "tiny", "--benchmark_min_time=0.001"};
const Strings kJson = {"--benchmark_format=json"};

// The benchmarks of a run that was asked for JSON.
std::vector<Json> Benchmarks(const Result& r) {
  const Json report = Json::parse(r.out, nullptr, false);
  EXPECT_TRUE(report.is_object()) << r.out << r.err;
  return report.is_object() ? report["benchmarks"].get<std::vector<Json>>() : std::vector<Json>();
}

TEST(CliBench, RunsWhatTheFilterSelects) {
  const Result r = RunLab(kBench + kJson + Strings{"--benchmark_filter=silu"});
  EXPECT_EQ(r.code, 0) << r.err;
  const std::vector<Json> found = Benchmarks(r);
  ASSERT_EQ(found.size(), 2u);  // median and cv
  for (const Json& b : found) ExpectHas(b["name"], {"silu/L03.silu/f32/hwy/SiluHwy/", "/tokens:1"});
  const Result none = RunLab(kBench + Strings{"--benchmark_filter=zzz"});
  EXPECT_EQ(none.code, 3);
  ExpectHas(none.err, {"--benchmark_filter"});
  Process full(kBench + Strings{"--benchmark_filter=silu"});
  EXPECT_EQ(full.Connect(STDOUT_FILENO, "/dev/full", O_WRONLY)().code, 2);
}

TEST(CliBench, EveryBuiltRowIsJudgedAndCounted) {
  std::set<std::string> functions;
  for (const char* backend : {"hwy", "ref"}) {
    const Result r = RunLab(kBench + kJson +
                            Strings{"--backend", backend, "--tokens", "9", "--depth", "5",
                                    "--benchmark_repetitions=1"});
    EXPECT_EQ(r.code, 0) << r.err;
    std::set<std::string> names;
    for (const Json& b : Benchmarks(r)) {
      SCOPED_TRACE(b["name"]);
      EXPECT_TRUE(names.insert(b["name"]).second);
      EXPECT_FALSE(b.contains("error_occurred")) << b;
      for (const char* counter : {"bytes", "GB/s", "GFLOP/s", "%roof", "read_GB/s", "err/tol"})
        EXPECT_GT(b.value(counter, 0.0), 0) << counter;
      EXPECT_LE(b["err/tol"], 1);
      Strings parts;
      std::istringstream in(b["name"].get<std::string>());
      for (std::string part; std::getline(in, part, '/');) parts.push_back(part);
      functions.insert(parts.at(4));
    }
  }
  for (const Json& row : Records(RunLab({"list", "kernels", "--format", "jsonl"}).out)) {
    if (row["backend"] != "hwy" && row["backend"] != "ref") continue;
    EXPECT_TRUE(functions.contains(row["function"])) << row;
  }
}

TEST(CliBench, AWrongRowIsNotTimed) {
  const Result r = RunLab(kBench + kJson + Strings{"--op", "silu", "--use", "silu=mutant:gelu"});
  EXPECT_EQ(r.code, 1) << r.err;
  const std::vector<Json> found = Benchmarks(r);
  ASSERT_EQ(found.size(), 1u);
  ExpectHas(found[0]["name"], {"SiluHwy+gelu"});
  EXPECT_EQ(found[0]["error_occurred"], true);
  ExpectHas(found[0]["error_message"], {"wrong", "tolerance", "y[t0, "});
  EXPECT_FALSE(found[0].contains("GB/s"));
}

TEST(CliBench, CaseFilesInsteadOfAModel) {
  const Result r = RunLab({"bench", "--cases", kCasesDir, "--case", "L03.gate_up,L03.attn_ctx*",
                           "--contract", "f32", "--warm", "--benchmark_min_time=0.001",
                           "--benchmark_format=json", "--benchmark_repetitions=1"});
  EXPECT_EQ(r.code, 0) << r.err;
  const std::vector<Json> found = Benchmarks(r);
  EXPECT_GE(found.size(), 3u);
  for (const Json& b : found) ExpectHas(b["name"], {"/L03.", "/warm"});
}

TEST(CliBench, ASlowerRunThanTheBaselineExits5) {
  TempDir dir;
  const Strings run = kBench + Strings{"--op", "silu,swiglu"};
  const std::string file = dir / "old.json";
  ASSERT_EQ(RunLab(run + Strings{"--benchmark_out=" + file}).code, 0);
  // What took a thousandth, and what took a thousand times as long.
  for (const auto& [factor, code] : {std::pair(1e-3, 5), {1e3, 0}}) {
    Json report = Json::parse(ReadBytes(file));
    for (Json& b : report["benchmarks"]) b["real_time"] = b["real_time"].get<double>() * factor;
    const std::string path = WriteBytes(dir / "doctored.json", report.dump());
    const Result r = RunLab(run + Strings{"--baseline", path, "--max-slowdown", "5%"});
    EXPECT_EQ(r.code, code) << r.err;
    ExpectHas(r.err, {code == 5 ? "2 of 2 benchmarks slower" : "0 of 2 benchmarks slower"});
  }
  const std::string garbage = WriteBytes(dir / "garbage", "{}");
  ExpectHas(RunLab(run + Strings{"--baseline", garbage}).err, {garbage, "--benchmark_out"});
}

TEST(CliBench, Roofline) {
  const Result r = RunLab({"bench", "--roofline", "--format", "jsonl"});
  EXPECT_EQ(r.code, 0) << r.err;
  const std::vector<Json> rows = Records(r.out);
  ASSERT_EQ(rows.size(), 3u);
  for (const Json& row : rows) {
    EXPECT_GT(row["1 thread"], 0) << row;
    EXPECT_TRUE(row.contains("unit"));
  }
  ExpectHas(RunLab({"bench", "--roofline"}).out, {"GB/s", "GFLOP/s", "GOP/s", "pages"});
}

TEST(CliBench, WholePasses) {
  const Result r = RunLab({"bench", "--model", "tiny", "--forward", "--contract", "q8", "--prefill",
                           "20", "--decode", "3", "--depths", "0,30", "--format", "jsonl"});
  EXPECT_EQ(r.code, 0) << r.err;
  const std::vector<Json> rows = Records(r.out);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0]["run"], "prefill");
  EXPECT_EQ(rows[2]["depth"], 30);
  for (const Json& row : rows)
    for (const char* rate : {"tok/s", "GB/s", "%roof"}) EXPECT_GT(row[rate], 0) << row;
}

TEST(CliBench, BadFlags) {
  const Strings bench = {"bench", "--model", "tiny"};
  const Case cases[] = {
      {bench + Strings{"--layer", "28"}, 2, {"--layer 28", "0 to 27"}},
      {bench + Strings{"--tokens", "0"}, 2, {"--tokens", "1 to 4096"}},
      {bench + Strings{"--op", "nope"}, 3, {"--op"}},
      {bench + Strings{"--case", "nope"}, 3, {"--case"}},
      {bench + Strings{"--use", "silu=SiluRef"}, 2, {"only mutants"}},
      {bench + Strings{"--target", "AVX9"}, 2, {"--target", "AVX9"}},
      {bench + Strings{"--baseline", "/none"}, 2, {"/none", "cannot open"}},
      {bench + Strings{"--forward", "--depths", "40000"}, 2, {"--depths", "context of 32768"}},
      {bench + Strings{"--forward", "--backend", "oracle"}, 2, {"--backend oracle"}},
  };
  for (const Case& c : cases) {
    const Result r = RunLab(c.args);
    EXPECT_EQ(r.code, c.code) << r.err;
    EXPECT_EQ(r.out, "");
    ExpectHas(r.err, c.said);
  }
}

}  // namespace
}  // namespace lab::cli_test
