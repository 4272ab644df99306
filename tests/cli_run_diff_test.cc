// The command line: lab diff, and lab inspect of a run.
#include "tests/cli_run.h"
#include "tests/paths.h"

namespace lab::cli_test {
namespace {

class CliRunDiff : public testing::Test {
 protected:
  // A run of tiny over three tokens, as a trace or as a dump.
  std::string Run(const std::string& name, const Strings& output, const Strings& more) {
    Strings args = {"forward", "--model", "tiny"};
    const auto unless = [&](const std::string& flag, const std::string& value) {
      if (std::find(more.begin(), more.end(), flag) == more.end())
        args = args + Strings{flag, value};
    };
    unless("--tokens", "5,6,7");
    unless("--backend", "ref");
    const Result r = RunLab(args + output + more);
    EXPECT_EQ(r.code, 0) << r.err;
    return dir_ / name;
  }
  std::string Trace(const std::string& name, const Strings& more = {}) {
    return Run(name, {"--trace=" + (dir_ / name)}, more);
  }
  std::string Dump(const std::string& name, const Strings& more = {}) {
    return Run(name, {"--dump", dir_ / name}, more);
  }
  // The lines of a trace for which keep says so.
  std::string Filter(const std::string& path, const std::string& name,
                     const std::function<bool(Json&)>& keep) {
    std::string text;
    for (Json& record : Records(ReadBytes(path)))
      if (keep(record)) text += record.dump() + "\n";
    return WriteBytes(dir_ / name, text);
  }
  TempDir dir_;
};

TEST_F(CliRunDiff, EqualRunsAreIdentical) {
  const Result r = RunLab({"diff", Trace("a"), Trace("b")});
  EXPECT_EQ(r.code, 0) << r.err;
  ExpectHas(r.out, {"verdict: identical, as far as the figures in the files go", "1689 places",
                    "rule of thumb", "\"normal\", right"});
  EXPECT_EQ(RunLab({"diff", Dump("c"), Dump("d")}).out.find("as far as"), std::string::npos);
}

TEST_F(CliRunDiff, BackendsDifferByRoundOffContractsByMore) {
  const std::string ref = Dump("ref"), hwy = Dump("hwy", {"--backend", "hwy", "--contract", "f32"});
  Result r = RunLab({"diff", ref, hwy});
  EXPECT_EQ(r.code, 0) << r.out;
  ExpectHas(r.out, {"verdict: within round-off (estimated"});
  r = RunLab({"diff", ref, hwy, "--model", "tiny"});
  EXPECT_EQ(r.code, 0) << r.out;
  ExpectHas(r.out, {"verdict: within round-off\n", "A against the oracle of f32: as it should be"});
  r = RunLab({"diff", ref, Trace("q8", {"--contract", "q8", "--trace-sketch"}), "--model", "tiny"});
  EXPECT_EQ(r.code, 0) << r.out;
  ExpectHas(r.out, {"within contract q8 (KV f16)\n", "by sketch"});
}

TEST_F(CliRunDiff, AMutantIsFoundByEveryKindOfEvidence) {
  const Strings mutant = {"--use", "silu@3=mutant:gelu"};
  const std::string good = Dump("good");
  for (const std::string& bad : {Dump("dump", mutant), Trace("trace", mutant),
                                 Trace("sketch", mutant + Strings{"--trace-sketch"})}) {
    const Result r = RunLab({"diff", good, bad, "--model", "tiny", "--format", "jsonl"});
    EXPECT_EQ(r.code, 1) << bad;
    const Json summary = Records(r.out).back();
    EXPECT_TRUE(summary["verdict"].get<std::string>().starts_with("different from L03.ffn_silu on"))
        << summary;
  }
  const Result r = RunLab({"diff", good, dir_ / "dump", "--model", "tiny"});
  ExpectHas(r.out, {"A against the oracle of f32: as it should be",
                    "B against the oracle of f32: different from L03.ffn_silu"});
}

// Pooled over all tokens against the last token alone: what was taken for a bug of 18x.
TEST_F(CliRunDiff, PooledAgainstTheLastToken) {
  const std::string run = Trace("run", {"--taps", "L03.ffn_swiglu,L03.ffn_up"});
  const std::string pooled = Filter(run, "pooled", [](Json& r) { return r["kind"] != "tap"; });
  const std::string last = Filter(run, "last", [](Json& r) {
    return r["kind"] != "pooled" && (r["kind"] != "tap" || r["token"] == 2);
  });
  Result r = RunLab({"diff", pooled, last});
  EXPECT_EQ(r.code, 3);
  ExpectHas(r.out, {"NOT COMPARABLE", "A holds tokens 0-2 pooled, B holds token 2"});
  EXPECT_EQ(r.out.find("ratio"), std::string::npos);
  EXPECT_EQ(r.out.find("rule of thumb"), std::string::npos);
  r = RunLab({"diff", pooled, last, "--explain", "--model", "tiny"});
  EXPECT_EQ(r.code, 3);
  ExpectHas(r.out, {"A: 2 taps are ours of that name, pooled over tokens 0-2 (",
                    "B: 2 taps are ours of that name, of token 2 alone ("});
  // A file that calls it pooled, of tokens that it does not name.
  const std::string claimed = Filter(last, "claimed", [](Json& r) {
    if (r["kind"] == "tap") {
      r["kind"] = "pooled";
      r["tokens"] = 2;
    }
    return true;
  });
  r = RunLab({"diff", run, claimed, "--explain"});
  ExpectHas(r.out, {"B: their `ffn_swiglu` is our `ffn_swiglu`", "of token 2 alone"});
  EXPECT_EQ(RunLab({"diff", pooled, run, "--pooled"}).code, 0);
}

TEST_F(CliRunDiff, QkvBeforeTheBiasIsNamed) {
  const std::string run = Trace("run", {"--taps", "qkv,?_proj"});
  // Their qkv: figures of q, k and v before the bias, as a program would print them.
  std::map<std::pair<int, int>, std::vector<Json>> parts;
  for (const Json& r : OfKind(Records(ReadBytes(run)), "tap"))
    if (r["tap"] != "qkv") parts[{r["layer"], r["token"]}].push_back(r);
  const std::string theirs = Filter(run, "theirs", [&](Json& r) {
    if (r["kind"] != "tap") return r["kind"] == "header";
    if (r["tap"] != "qkv") return false;
    double n = 0, sum = 0, squares = 0, absmax = 0;
    for (const Json& p : parts.at({r["layer"], r["token"]})) {
      n += p["n"].get<double>();
      sum += p["n"].get<double>() * p["mean"].get<double>();
      squares += p["l2"].get<double>() * p["l2"].get<double>();
      absmax = std::max(absmax, p["absmax"].get<double>());
    }
    const double mean = sum / n;
    for (const char* key : {"min", "max", "rms", "l2", "crest", "argmax", "zeros"}) r.erase(key);
    r["mean"] = mean, r["std"] = std::sqrt(squares / n - mean * mean), r["absmax"] = absmax;
    return true;
  });
  const Result r = RunLab({"diff", run, theirs, "--explain"});
  EXPECT_EQ(r.code, 1);
  ExpectHas(r.out, {"B: their `qkv` is our `q_proj|k_proj|v_proj` (before the bias)"});
}

TEST_F(CliRunDiff, BadInput) {
  const std::string run = Trace("run"), other = Trace("other", {"--tokens", "1,2"});
  const std::string model = WriteTiny(dir_ / "m.gguf");
  const Case cases[] = {
      {{"diff", run}, 2, {"B"}},
      {{"diff", run, dir_ / "none"}, 2, {"none"}},
      {{"diff", run, model}, 2, {"a weight file, but"}},
      {{"diff", "tiny", run}, 2, {"tiny: a weight file, but"}},
      {{"diff", "tiny", model, "--explain"}, 2, {"--explain: means nothing for two weight files"}},
      {{"diff", run, run, "--min-cos", "0.9"}, 2, {"--min-cos: means nothing for two runs"}},
      {{"diff", run, run, "--only", "first"}, 2, {"'first' is neither all, last nor a position"}},
      {{"diff", run, run, "--format", "xml"}, 2, {"--format"}},
      {{"diff", run, other, "--format", "csv"}, 3, {"NOT COMPARABLE: different tokens"}}};
  ExpectFails(cases);
  EXPECT_EQ(RunLab({"diff", run, other}).code, 3);
}

TEST_F(CliRunDiff, InspectChecksTheLaws) {
  const Strings use = {"--use", "residual_add@3=mutant:residual_bf16"};
  Result r = RunLab({"inspect", Trace("run")});
  EXPECT_EQ(r.code, 0) << r.out;
  ExpectHas(r.out, {"format    lab trace", "std       population", "all laws hold"});
  r = RunLab({"inspect", Dump("good")});
  EXPECT_EQ(r.code, 0) << r.out;
  r = RunLab({"inspect", Dump("bad", use)});
  EXPECT_EQ(r.code, 1);
  ExpectHas(r.out, {"checks broken, the first: attn_residual = input + attn_out at "
                    "L03.attn_residual token 0"});
  r = RunLab({"inspect", dir_ / "bad", "--format", "jsonl"});
  EXPECT_GT(Records(r.out).back()["broken"], 0);
}

// The published trace of the 7B: what its figures are can be told, which tokens they pool cannot.
TEST_F(CliRunDiff, InspectOfThePublishedTrace) {
  const std::string golden = std::string(kGoldenDir) + "/apr-trace.7b.";
  for (const char* name : {"head.txt", "sub-ffn-stds.csv"}) {
    const Result r = RunLab({"inspect", golden + name});
    EXPECT_EQ(r.code, 0) << r.out;
    ExpectHas(r.out, {"format    apr ", "std       sample, pooled over tokens",
                      "which tokens are pooled is not said", "pooled figures"});
    EXPECT_EQ(r.out.find("not understood"), std::string::npos) << r.out;
  }
}

TEST_F(CliRunDiff, LocalJudgesADumpOnItsOwnValues) {
  const Result good = RunLab({"diff", "--model", "tiny", "--local", Dump("good")});
  EXPECT_EQ(good.code, 0) << good.out;
  ExpectHas(good.out, {"no wrong step: all 423", "contract f32: as the file says"});
  const std::string bad = Dump("bad", {"--use", "silu@5=mutant:gelu"});
  Result r = RunLab({"diff", "--model", "tiny", "--local", bad});
  EXPECT_EQ(r.code, 1);
  ExpectHas(r.out, {"WRONG from L05.silu on: op silu: error", "L05.ffn_silu token",
                    "1 of 423 steps are wrong on the run's own input"});
  r = RunLab({"diff", "--model", "tiny", "--local", bad, "--format", "jsonl"});
  const Json summary = Records(r.out).back();
  EXPECT_EQ(summary["first"], "L05.silu");
  EXPECT_EQ(summary["op"], "silu");
  EXPECT_EQ(summary["layer"], 5);
  EXPECT_EQ(summary["wrong"], 1);
  const std::string names = WriteBytes(dir_ / "names.toml", "tensors = [{name = 'x'}]\n");
  const Case cases[] = {
      {{"diff", "--local"}, 2, {"--local"}},
      {{"diff", bad, bad, "--local", bad}, 2, {"--local"}},
      {{"diff", "--model", "tiny", "--local", dir_ / "none"}, 2, {"none"}},
      {{"diff", "--model", "tiny", "--local", names}, 2, {"no trace or dump that lab knows"}},
      {{"diff", "--model", "tiny", "--local", bad, "--explain"}, 2, {"--explain: means nothing"}},
      {{"diff", "--model", "tiny", "--local", bad, "--names", names}, 2, {"names.toml: line 1"}},
      {{"diff", "--model", "tiny", "--local", Trace("trace")}, 3, {"--local needs tensors"}}};
  ExpectFails(cases);
}

}  // namespace
}  // namespace lab::cli_test
