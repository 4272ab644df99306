// The command line: traces, dumps and whole passes judged.
#include "tests/cli_run.h"

namespace lab::cli_test {
namespace {

// --- trace and dump ---

constexpr size_t kLayers = 28;

size_t LayerTaps() {
  size_t n = 0;
  for (const TapInfo& tap : Taps()) n += tap.per_layer;
  return n;
}

TEST(CliTrace, JsonLinesOnStandardOutput) {
  const Result r = RunLab(kForward + Strings{"--tokens", "5,6,7", "--trace=-"});
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(r.err, "");
  const std::vector<Json> records = Records(r.out);
  ASSERT_FALSE(records.empty());
  EXPECT_EQ(records.front()["kind"], "header");
  EXPECT_EQ(records.back()["kind"], "summary");
  EXPECT_EQ(OfKind(records, "header").size(), 1u);
  const auto taps = OfKind(records, "tap"), tops = OfKind(records, "top");
  EXPECT_EQ(taps.size(), 3 * (kLayers * LayerTaps() + Taps().size() - LayerTaps()));
  EXPECT_EQ(tops.size(), 3u) << "a traced prefill has the top of every token";
  const Json& summary = records.back();
  EXPECT_EQ(summary["tokens"], 3);
  EXPECT_EQ(summary["taps"], taps.size());
  EXPECT_EQ(summary["tops"], tops.size());
  EXPECT_EQ(summary["nan"], 0);
  EXPECT_EQ(summary["inf"], 0);
}

TEST(CliTrace, RecordsHaveTheKeysOfTheFormat) {
  const std::vector<Json> records = Records(RunLab(kShort + Strings{"--trace=-"}).out);
  const Strings stats = {"n",   "nan", "inf",    "zeros",  "min", "max",  "mean",
                         "std", "rms", "absmax", "argmax", "l2",  "crest"};
  const Strings tap = Strings{"kind", "tap", "layer", "token", "id"} + stats;
  std::set<std::string> bare;
  for (const Json& r : OfKind(records, "tap")) {
    EXPECT_EQ(KeysOf(r), tap);
    EXPECT_EQ(r["id"], r["token"] == 0 ? 1 : 2);
    for (const std::string& key : stats) EXPECT_TRUE(r[key].is_number()) << r;
    if (r["layer"].is_null()) bare.insert(r["tap"]);
  }
  EXPECT_EQ(bare, (std::set<std::string>{"embedding", "final_norm", "lm_head"}));
  for (const Json& r : OfKind(records, "top")) {
    EXPECT_EQ(KeysOf(r), Strings({"kind", "token", "ids", "logits", "p"}));
    EXPECT_EQ(r["ids"].size(), 5u);
    EXPECT_TRUE(std::is_sorted(r["logits"].rbegin(), r["logits"].rend()));
  }
  for (const Json& r : OfKind(records, "pooled"))
    EXPECT_EQ(KeysOf(r),
              (Strings{"kind", "tap", "layer", "tokens"} + stats) + Strings{"argmax_token"});
}

TEST(CliTrace, TheHeaderSaysWhatWasRun) {
  const Strings args =
      kShort + Strings{"-n", "2", "--ignore-eos", "--trace=-", "--threads", "1", "--taps", "L03.*"};
  const Result r = RunLab(args);
  const Json header = Records(r.out).at(0);
  for (const char* key : {"schema",   "model",          "sha256", "architecture", "types",
                          "ids",      "positions",      "steps",  "recorded",     "contract",
                          "kv",       "backend",        "rows",   "threads",      "commit",
                          "compiler", "highway_target", "device", "command_line", "layers"})
    EXPECT_TRUE(header.contains(key)) << key;
  EXPECT_EQ(header["command_line"].get<Strings>(), args);
  EXPECT_EQ(header["ids"].size(), 3u) << "two of the prompt, one generated and run";
  EXPECT_EQ(header["positions"], Json({0, 1, 2}));
  EXPECT_EQ(header["steps"].size(), 2u);
  EXPECT_EQ(header["steps"][0], Json({{"phase", "prefill"}, {"first", 0}, {"tokens", 2}}));
  EXPECT_EQ(header["steps"][1], Json({{"phase", "decode"}, {"first", 2}, {"tokens", 1}}));
  EXPECT_EQ(header["types"].size(),
            ReadGguf(FileBytes::Borrow("tiny", TinyGguf())).tensors().size());
  EXPECT_EQ(header["types"]["output.weight"], "Q6_K");
  EXPECT_EQ(header["threads"], 1);
  EXPECT_EQ(header["backend"], "ref");
}

TEST(CliTrace, NumbersHaveNineDigits) {
  for (const Json& r : OfKind(Records(RunLab(kShort + Strings{"--trace=-"}).out), "tap")) {
    const double value = r["std"];
    char text[40];
    snprintf(text, sizeof text, "%.9g", value);
    EXPECT_EQ(std::strtod(text, nullptr), value) << r;
  }
}

TEST(CliTrace, TapsAreChosenByNameAndByPath) {
  const Result r = RunLab(kShort + Strings{"--trace=-", "--taps", "ffn_swiglu,L03.q_*,lm_head"});
  std::map<std::string, size_t> counts;
  for (const Json& record : OfKind(Records(r.out), "tap")) ++counts[record["tap"]];
  EXPECT_EQ(counts, (std::map<std::string, size_t>{{"ffn_swiglu", 2 * kLayers},
                                                   {"q_proj", 2},
                                                   {"q_bias", 2},
                                                   {"q_rope", 2},
                                                   {"lm_head", 2}}));
}

TEST(CliTrace, AFileAndATableAtOnce) {
  TempDir dir;
  const Result r = RunLab(kShort + Strings{"--trace=" + (dir / "t.jsonl")});
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(dir.Names(), Strings{"t.jsonl"});
  ExpectHas(r.out, {"L27 mean", "top 5 after"});
  EXPECT_EQ(Records(ReadBytes(dir / "t.jsonl")).at(0)["kind"], "header");
  EXPECT_EQ(r.out.find('\x1b'), std::string::npos) << "no colour where no terminal is";
}

TEST(CliTrace, FormatJsonlAndTheTraceAgree) {
  TempDir dir;
  const Result r = RunLab(kShort + Strings{"--format", "jsonl", "--trace=" + (dir / "t")});
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(r.out, ReadBytes(dir / "t"));
}

TEST(CliTrace, CsvHasALineForEachLayerAndToken) {
  TempDir dir;
  const Result r = RunLab(kForward + Strings{"--tokens", "1,2,3", "--trace=" + (dir / "t.csv")});
  EXPECT_EQ(r.code, 0);
  const Strings lines = Lines(ReadBytes(dir / "t.csv"));
  ASSERT_EQ(lines.size(), kLayers * 3 + 1);
  EXPECT_TRUE(lines[0].starts_with("layer,token,id,attn_norm_mean,attn_norm_std")) << lines[0];
  EXPECT_TRUE(lines[5].starts_with("1,1,2,")) << lines[5];
  for (const std::string& line : lines)
    EXPECT_EQ(std::count(line.begin(), line.end(), ','), 2 + 4 * static_cast<long>(LayerTaps()));
}

TEST(CliTrace, ChangesNoLogit) {
  const Strings args =
      kForward + Strings{"--tokens", "9,8,7,6", "--format", "jsonl", "--top", "512"};
  const Json untraced = TopOf(RunLab(args));
  EXPECT_EQ(untraced["logits"].size(), 512u);
  EXPECT_EQ(untraced, TopOf(RunLab(args + Strings{"--trace"})));
  EXPECT_EQ(untraced, TopOf(RunLab(args + Strings{"--dump", "/dev/null"})));
  EXPECT_EQ(OfKind(Records(RunLab(args).out), "top").size(), 1u);
}

TEST(CliTrace, ADumpHoldsTheTensorsOfTheTrace) {
  for (const char* backend : {"ref", "oracle"}) {
    SCOPED_TRACE(backend);
    TempDir dir;
    const Result r =
        RunLab({"forward", "--model", "tiny", "--tokens", "1,2", "--backend", backend, "--trace=-",
                "--dump", dir / "d", "--taps", "L03.*,embedding,lm_head"});
    EXPECT_EQ(r.code, 0) << r.err;
    const Safetensors dump(dir / "d");
    EXPECT_EQ(dump.entries().size(), LayerTaps() + 2);
    EXPECT_EQ(dump.metadata().at("ids"), "1,2");
    for (const Json& tap : OfKind(Records(r.out), "tap")) {
      const std::string name = tap["tap"];
      const auto* tensor = dump.Find(tap["layer"].is_null() ? name : "L03." + name);
      ASSERT_NE(tensor, nullptr) << name;
      const size_t n = tap["n"], token = tap["token"];
      EXPECT_EQ(tensor->shape, (std::vector<size_t>{2, n}));
      EXPECT_EQ(tensor->dtype, std::string(backend) == "oracle" ? "F64" : "F32");
      double squares = 0;
      for (size_t i = 0; i < n; ++i) squares += std::pow(tensor->At(token * n + i), 2);
      EXPECT_NEAR(std::sqrt(squares) / tap["l2"].get<double>(), 1, 1e-8) << name;
    }
  }
}

TEST(CliTrace, NonFiniteValuesAreNamedAndGiveFour) {
  TempDir dir;
  std::vector<uint8_t> bytes = TinyGguf();
  const WeightFile gguf = ReadGguf(FileBytes::Borrow("tiny", TinyGguf()));
  const float nan = std::nanf("");
  std::memcpy(&bytes[gguf.FindTensor("blk.2.ffn_norm.weight")->offset + 40], &nan, sizeof nan);
  const std::string path = WriteBytes(dir / "nan.gguf", AsText(bytes));
  const Strings args = {"forward", "--model", path, "--backend", "ref", "--tokens", "1"};
  const Result r = RunLab(args + Strings{"--trace=-"});
  EXPECT_EQ(r.code, 4);
  EXPECT_EQ(r.err, "lab: first value that is not finite: L02.ffn_norm token 0 channel 10\n");
  for (const Json& tap : OfKind(Records(r.out), "tap"))
    if (tap["tap"] == "ffn_norm" && tap["layer"] == 2) {
      EXPECT_EQ(tap["nan"], 1);
      EXPECT_EQ(tap["mean"], "NaN");
    }
  EXPECT_GT(Records(r.out).back()["nan"], 0);
  EXPECT_EQ(RunLab(args).code, 4);
}

// --- check --forward ---

const Strings kComposed = {"check", "--forward", "--model", "tiny"};

TEST(CliCheckForward, JsonLinesHoldEveryTapAndTokenOfEveryContract) {
  const Result r =
      RunLab(kComposed + Strings{"--tokens", "1,2,3", "--generate", "2", "--format", "jsonl"});
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(r.err, "");
  const std::vector<Json> records = Records(r.out);
  const size_t places = 3 * (3 + 20 * 28) * 5;
  std::set<std::string> seen;
  for (const Json& tap : OfKind(records, "tap")) {
    EXPECT_EQ(tap["verdict"], "pass") << tap;
    seen.insert(fmt::format("{} {} {} {}", tap["contract"].dump(), tap["tap"].dump(),
                            tap["layer"].dump(), tap["token"].dump()));
  }
  EXPECT_EQ(seen.size(), places);
  EXPECT_EQ(OfKind(records, "logits").size(), 15u);
  const auto tokens = OfKind(records, "tokens");
  ASSERT_EQ(tokens.size(), 3u);
  for (const Json& t : tokens) EXPECT_EQ(t["positions"], 3);
  EXPECT_EQ(records.size(), places + 15 + 3 + 1);
  EXPECT_EQ(records.back()["kind"], "summary");
  EXPECT_EQ(records.back()["passed"], places);
}

TEST(CliCheckForward, TextHasALineForEachTapWorstFirstIfAsked) {
  const Result r = RunLab(
      kComposed + Strings{"--tokens", "1,2,3", "--contract", "q8", "--kv", "f32", "--worst"});
  EXPECT_EQ(r.code, 0) << r.err;
  const Strings lines = Lines(r.out);
  double before = 1;
  for (size_t i = 1; i <= 23; ++i) {
    EXPECT_TRUE(lines.at(i).starts_with("pass     q8        f32 ")) << lines[i];
    const double ratio = std::stod(lines[i].substr(lines[i].rfind(' ')));
    EXPECT_LE(ratio, before);
    before = ratio;
  }
  EXPECT_EQ(lines.at(24), "");
  ExpectHas(r.out, {"t2, last of the prompt", "t0", "t1, worst of the others"});
  ExpectHas(lines.back(), {"1689 taps passed, 0 failed", "1 argmaxes, 0 ties, 0 failed"});
}

TEST(CliCheckForward, WhatDoesNotGoTogether) {
  const Case cases[] = {
      {kComposed + Strings{"--op", "silu"}, 2, {"--op excludes --forward"}},
      {kComposed + Strings{"--case", "x"}, 2, {"--case excludes --forward"}},
      {kComposed + Strings{"--cases", "x"}, 2, {"--cases excludes --forward"}},
      {kComposed + Strings{"--layer", "3"}, 2, {"--layer excludes --forward"}},
      {kComposed + Strings{"--repeat", "2"}, 2, {"--repeat excludes --forward"}},
      {{"check", "--prompt", "x"}, 2, {"--prompt requires --forward"}},
      {{"check", "--tokens", "1"}, 2, {"--tokens requires --forward"}},
      {{"check", "--kv", "f16"}, 2, {"--kv requires --forward"}},
      {{"check", "--generate", "1"}, 2, {"--generate requires --forward"}},
      {kComposed + Strings{"--prompt", "x", "--tokens", "1"}, 2, {"--prompt excludes --tokens"}},
      {kComposed + Strings{"--prompt", ""}, 2, {"prompt is empty"}},
      {kComposed + Strings{"--generate", "-1"}, 2, {"--generate", "-1"}},
      {kComposed + Strings{"--generate", "40000"}, 2, {"40000", "context of 32768"}},
      {kComposed + Strings{"--tokens", "512"}, 2, {"512 is no token"}},
      {kComposed + Strings{"--kv", "f8"}, 2, {"--kv", "'f8'"}},
      {kComposed + Strings{"--backend", "oracle"}, 2, {"--backend oracle", "give ref or hwy"}},
      {kComposed + Strings{"--backend", "cuda"}, 125, {"--backend cuda"}}};
  ExpectFails(cases);
}

TEST(CliCheckForward, ACandidateThatIsNotFiniteGivesFour) {
  TempDir dir;
  std::vector<uint8_t> bytes = TinyGguf();
  const WeightFile gguf = ReadGguf(FileBytes::Borrow("tiny", TinyGguf()));
  const float nan = std::nanf("");
  std::memcpy(&bytes[gguf.FindTensor("blk.2.ffn_norm.weight")->offset + 40], &nan, sizeof nan);
  const std::string path = WriteBytes(dir / "nan.gguf", AsText(bytes));
  const Result r = RunLab({"check", "--forward", "--model", path, "--contract", "f32"});
  EXPECT_EQ(r.code, 4);
  EXPECT_EQ(r.err, "lab: first value that is not finite: f32 L02.ffn_norm token 0 channel 10\n");
}

}  // namespace
}  // namespace lab::cli_test
