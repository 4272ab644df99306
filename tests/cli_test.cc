// The command line: usage, which model, generation, and the verbs that are neither trace nor check.
#include "tests/cli_run.h"
#include "tests/paths.h"

namespace lab::cli_test {
namespace {

// --- usage ---

TEST(CliUsage, NoArgumentsShowTheUsage) {
  const Result r = RunLab({});
  EXPECT_EQ(r.code, 2);
  ExpectHas(r.out, {"Usage: lab VERB", "Example: lab ", "Exit codes:"});
  const Strings verbs = Verbs();
  for (const char* verb : {"forward", "bench", "tokenize", "inspect", "list", "synth"})
    EXPECT_EQ(std::count(verbs.begin(), verbs.end(), verb), 1) << verb;
}

TEST(CliUsage, HelpOfEveryVerbHasAnExample) {
  for (const char* help : {"--help", "-h"}) {
    EXPECT_EQ(RunLab({help}).code, 0);
    for (const std::string& verb : Verbs()) {
      const Result r = RunLab({verb, help});
      EXPECT_EQ(r.code, 0) << verb;
      EXPECT_EQ(r.err, "") << verb;
      ExpectHas(r.out, {"Usage: lab " + verb, "Example:\n  lab " + verb, "--help"});
    }
  }
}

TEST(CliUsage, Version) {
  const Result r = RunLab({"--version"});
  EXPECT_EQ(r.code, 0);
  EXPECT_TRUE(r.out.starts_with("lab ")) << r.out;
  ExpectHas(r.out, {"commit", "compiler", "highway", "cuda"});
}

TEST(CliUsage, UnknownNamesShowTheNearest) {
  const Case cases[] = {
      {{"forwrd"}, 2, {"unknown verb 'forwrd'", "did you mean 'forward'?", "inspect"}},
      {{"frobnicate"}, 2, {"unknown verb 'frobnicate'", "known: forward, check"}},
      {{"a\nb\x1b"}, 2, {"'a\\x0ab\\x1b'"}},
      {{"forward", "--theads", "3"}, 2, {"--theads", "did you mean '--threads'?"}},
      {{"forward", "--promt=x"}, 2, {"--promt", "did you mean '--prompt'?"}},
      {{"bench", "--benchmark_filterx=1"}, 2, {"--benchmark_filterx"}},
      {{"tokenize", "--decod"}, 2, {"did you mean '--decode'?"}},
      {{"inspect", "--formt", "text"}, 2, {"did you mean '--format'?"}},
      {{"list", "taps", "--zzz"}, 2, {"--zzz"}},
      {{"synth", "tiny", "--outptu", "f"}, 2, {"did you mean '--output'?"}},
      {{"list", "tpas"}, 2, {"unknown value 'tpas'", "did you mean 'taps'?"}},
      {{"synth", "tinny", "-o", "/tmp/none"}, 2, {"'tinny'", "tiny, random:0.5b"}},
      {{"forward", "--model", "tiny", "--backend", "oracel"},
       2,
       {"--backend", "did you mean 'oracle'?"}},
      {kShort + Strings{"--contract", "f23"}, 2, {"--contract", "'f23'", "known: f32"}},
      {kShort + Strings{"--kv", "f23"}, 2, {"--kv", "'f23'", "f32"}},
      {kShort + Strings{"--format", "jsnl"}, 2, {"--format", "did you mean 'jsonl'?"}},
      {kShort + Strings{"--taps", "ffn_swiglo"}, 3, {"ffn_swiglo", "did you mean 'ffn_swiglu'?"}},
      {kShort + Strings{"--trace", "--taps", "L03.*,nope"}, 3, {"'nope' selects no tap"}},
      {kShort + Strings{"--dump", "/dev/null", "--taps", "L28.*"}, 3, {"'L28.*' selects no tap"}}};
  ExpectFails(cases);
}

TEST(CliUsage, BadValues) {
  const Case cases[] = {
      {kShort + Strings{"--threads", "0"}, 2, {"--threads", "1 to 1024"}},
      {kShort + Strings{"--threads", "1025"}, 2, {"--threads", "1 to 1024"}},
      {kShort + Strings{"--threads", "-1"}, 2, {"--threads", "1 to 1024"}},
      {kShort + Strings{"--threads=-1"}, 2, {"--threads", "1 to 1024"}},
      {kShort + Strings{"--threads", "abc"}, 2, {"--threads", "abc"}},
      {kShort + Strings{"--threads", "99999999999"}, 2, {"--threads"}},
      {{"bench", "--model", "tiny", "--threads", "0"}, 2, {"--threads", "1 to 1024"}},
      {{"forward", "--model", "tiny", "--backend", "cuda"}, 125, {"--backend cuda"}},
      {kShort + Strings{"-n", "-1"}, 2, {"-n", "-1"}},
      {kShort + Strings{"-n", "x"}, 2, {"-n", "x"}},
      {kShort + Strings{"-n", "40000"}, 2, {"40000", "context of 32768"}},
      {kShort + Strings{"--top", "-1"}, 2, {"--top", "-1"}},
      {kForward + Strings{"--tokens", "512"}, 2, {"512 is no token", "0 to 511"}},
      {kForward + Strings{"--tokens", "-1"}, 2, {"'-1' is not a token id"}},
      {kForward + Strings{"--tokens", "1,,2"}, 2, {"'' is not a token id"}},
      {kForward + Strings{"--tokens", "1,2,"}, 2, {"'' is not a token id"}},
      {kForward + Strings{"--tokens", "1 2"}, 2, {"'1 2' is not a token id"}},
      {kForward + Strings{"--tokens", "x\n"}, 2, {"'x\\x0a' is not a token id"}},
      {kForward + Strings{"--tokens", "99999999999999999999"}, 2, {"is not a token id"}},
      {kForward + Strings{"--prompt", ""}, 2, {"prompt is empty"}},
      {kForward + Strings{"--prompt-file", "/dev/null"}, 2, {"prompt is empty"}},
      {kForward + Strings{"--prompt", "ab\xff"}, 2, {"not UTF-8", "offset 2"}},
      {kForward + Strings{"--prompt", "x", "--tokens", "1"}, 2, {"--prompt excludes --tokens"}},
      {kForward + Strings{"--chat", "--tokens", "1"}, 2, {"--chat", "--tokens"}},
      {kForward + Strings{"--prompt-file", "/none"}, 2, {"/none: cannot open"}},
      {kForward + Strings{"--prompt-file", "/"}, 2, {"/: cannot read"}},
      {kShort + Strings{"extra"}, 2, {"extra"}},
      {{"list"}, 2, {"what is missing: kernels, cases"}},
      {{"synth", "tiny"}, 2, {"--output is required"}},
      {{"tokenize", "--model", "tiny"}, 2, {"give one of --prompt"}},
      {{"tokenize", "--model", "tiny", "--prompt", "a", "--tokens", "1"}, 2, {"give one of"}},
      {{"tokenize", "--model", "tiny", "--prompt", "a", "--decode"}, 2, {"--decode"}},
      {{"tokenize", "--model", "tiny", "--tokens", "1"}, 2, {"--decode"}},
      {{"tokenize", "--model", "tiny", "--decode", "--tokens", "512"}, 2, {"512 is no token"}}};
  ExpectFails(cases);
}

// A variable that the shell expands to nothing must not mean "use the default".
TEST(CliUsage, EmptyValuesAreNotTakenForAbsentOnes) {
  const Case cases[] = {{kForward + Strings{"--tokens", ""}, 2, {"--tokens", "empty"}},
                        {kForward + Strings{"--prompt-file", ""}, 2, {"--prompt-file", "empty"}},
                        {kShort + Strings{"--dump", ""}, 2, {"--dump", "empty"}},
                        {kShort + Strings{"--taps", ""}, 2, {"--taps", "empty"}},
                        {{"forward", "--model", ""}, 2, {"--model", "empty"}},
                        {{"inspect", ""}, 2, {"empty"}},
                        {{"tokenize", "--model", "tiny", "--jsonl", ""}, 2, {"--jsonl", "empty"}},
                        {{"synth", "tiny", "-o", ""}, 2, {"--output", "empty"}}};
  ExpectFails(cases);
}

TEST(CliUsage, FilesThatAreNoModel) {
  TempDir dir;
  fs::create_directory(dir / "folder");
  WriteBytes(dir / "empty", "");
  WriteBytes(dir / "garbage", std::string(10000, 'x'));
  const std::string_view tiny = AsText(TinyGguf());
  WriteBytes(dir / "half", tiny.substr(0, tiny.size() / 2));
  WriteBytes(dir / "start", tiny.substr(0, 1000));
  const struct {
    const char *name, *said;
  } files[] = {
      {"missing", "cannot open: No such file"}, {"folder", "not a regular file"},
      {"empty", "the file is empty"},           {"garbage", "not a GGUF, APR or safetensors file"},
      {"half", "past the end of the file"},     {"start", "truncated"}};
  for (const auto& file : files) {
    const std::string path = dir / file.name;
    const Case cases[] = {{{"forward", "--model", path}, 2, {path + ": ", file.said}},
                          {{"bench", "--model", path}, 2, {path + ": ", file.said}},
                          {{"inspect", path}, 2, {path + ": ", file.said}},
                          {{"tokenize", "--model", path, "--prompt", "x"}, 2, {path, file.said}}};
    ExpectFails(cases);
  }
}

TEST(CliUsage, AnotherArchitecture) {
  TempDir dir;
  std::vector<uint8_t> llama = TinyGguf();
  // Behind the length of the string; both names have five letters.
  std::memcpy(&llama[OffsetOfValue(llama, "general.architecture") + 8], "llama", 5);
  const std::string path = WriteBytes(dir / "llama.gguf", AsText(llama));
  ExpectFails(RunLab({"forward", "--model", path}), 2, {path, "architecture is 'llama'", "qwen2"});
}

// --- which model ---

TEST(CliModel, NoneAnywhereMeansTinyAndSaysSo) {
  const Result r = RunLab({"forward", "--trace"});
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(Lines(r.err).size(), 1u) << r.err;
  ExpectHas(r.err, {"no model found", "'tiny'", "./dev model"});
  ExpectHas(r.out, {"tiny (qwen2)", "L00 mean", "L27 mean", "top 5 after"});
}

TEST(CliModel, TheFlagThenTheVariableThenTheFetchedFile) {
  Process fetched({"forward", "--tokens", "1", "--format", "jsonl"});
  fs::create_directories(fetched.cache() + "/lab");
  const std::string path =
      WriteTiny(fetched.cache() + "/lab/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf");
  const Result r = fetched();
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(r.err, "lab: model " + path + "\n");
  EXPECT_EQ(Records(r.out).at(0)["model"], path);

  Process variable({"forward", "--tokens", "1"});
  const Result v = variable.Env("LAB_MODEL", "/none")();
  EXPECT_EQ(v.code, 2);
  ExpectHas(v.err, {"lab: model /none (from $LAB_MODEL)\n", "lab: /none: cannot open"});
  Process flag(kShort);
  const Result f = flag.Env("LAB_MODEL", "/none")();
  EXPECT_EQ(f.code, 0);
  EXPECT_EQ(f.err, "");
}

TEST(CliModel, ASynthesisedFileGivesTheSameLogits) {
  TempDir dir;
  const std::string path = dir / "tiny.gguf";
  const Result synth = RunLab({"synth", "tiny", "-o", path});
  EXPECT_EQ(synth.code, 0) << synth.err;
  EXPECT_EQ(synth.out, "");
  EXPECT_EQ(ReadBytes(path) == AsText(TinyGguf()), true);
  const Strings rest = {"--tokens", "7,8,9", "--format", "jsonl", "--model"};
  const Json top = TopOf(RunLab(Strings{"forward"} + rest + Strings{path}));
  EXPECT_EQ(top, TopOf(RunLab(Strings{"forward"} + rest + Strings{"tiny"})));
  EXPECT_EQ(top["ids"].size(), 5u);
}

TEST(CliModel, ItsHashStandsInTheTraceAndIsRemembered) {
  TempDir dir;
  const std::string path = WriteTiny(dir / "m.gguf");
  const std::string hash = Sha256(TinyGguf());
  const Strings args = {"forward", "--model", path, "--tokens", "1", "--trace=-"};
  const auto hash_of = [](const Result& r) { return Records(r.out).at(0)["sha256"]; };

  Process first(args);
  EXPECT_EQ(hash_of(first.Env("XDG_CACHE_HOME", dir / "cache")()), hash);
  const std::string memory = dir / "cache/lab/sha256.json";
  ASSERT_TRUE(fs::exists(memory));
  // What is remembered is used: a false memory shows.
  std::string text = ReadBytes(memory);
  text.replace(text.find(hash), hash.size(), std::string(64, '0'));
  WriteBytes(memory, text);
  Process second(args);
  EXPECT_EQ(hash_of(second.Env("XDG_CACHE_HOME", dir / "cache")()), std::string(64, '0'));
  fs::last_write_time(path, fs::last_write_time(path) - std::chrono::hours(1));
  Process touched(args);
  EXPECT_EQ(hash_of(touched.Env("XDG_CACHE_HOME", dir / "cache")()), hash);

  WriteBytes(memory, "{damaged");
  Process damaged(args);
  EXPECT_EQ(hash_of(damaged.Env("XDG_CACHE_HOME", dir / "cache")()), hash);
  Process nowhere(args);
  EXPECT_EQ(hash_of(nowhere.Env("XDG_CACHE_HOME", "/dev/null")()), hash);
}

TEST(CliModel, APathThatIsNotUtf8) {
  TempDir dir;
  const std::string path = WriteTiny(dir / "m\xff.gguf");
  const Result r = RunLab(
      {"forward", "--model", path, "--tokens", "1", "--trace=" + (dir / "t"), "--dump", dir / "d"});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(Records(ReadBytes(dir / "t")).at(0)["sha256"], Sha256(TinyGguf()));
  EXPECT_NE(Safetensors(dir / "d").Find("lm_head"), nullptr);
}

// --- generation ---

TEST(CliForward, GeneratesAsManyAsAsked) {
  for (const size_t n : {0, 1, 3}) {
    const Strings args = kShort + Strings{"-n", std::to_string(n), "--ignore-eos"};
    const auto records = Records(RunLab(args + Strings{"--format", "jsonl"}).out);
    const auto generated = OfKind(records, "generated");
    ASSERT_EQ(generated.size(), n > 0 ? 1u : 0u);
    // The last token generated is never run.
    EXPECT_EQ(records.at(0)["ids"].size(), 2 + (n > 0 ? n - 1 : 0));
    if (n == 0) continue;
    EXPECT_EQ(generated[0]["ids"].size(), n);
    EXPECT_EQ(generated[0]["end"], "length");
    EXPECT_EQ(RunLab(args).out, generated[0]["text"].get<std::string>() + "\n");
  }
}

TEST(CliForward, StopsAtTheEndOfText) {
  TempDir dir;
  const Strings rest = {"--tokens", "1,2", "-n", "3", "--format", "jsonl"};
  const auto generated = [&](const Strings& args) {
    return OfKind(Records(RunLab(Strings{"forward"} + args + rest).out), "generated").at(0);
  };
  const auto ids =
      generated({"--model", "tiny", "--ignore-eos"})["ids"].get<std::vector<uint32_t>>();
  std::vector<uint8_t> bytes = TinyGguf();
  std::memcpy(&bytes[OffsetOfValue(bytes, "tokenizer.ggml.eos_token_id")], &ids[1], sizeof ids[1]);
  const std::string path = WriteBytes(dir / "eos.gguf", AsText(bytes));
  const size_t expected = ids[0] == ids[1] ? 1 : 2;
  const Json stopped = generated({"--model", path});
  EXPECT_EQ(stopped["ids"].size(), expected);
  EXPECT_EQ(stopped["end"], "end_of_text");
  EXPECT_EQ(generated({"--model", path, "--ignore-eos"})["ids"].size(), 3u);
}

TEST(CliForward, ThePromptComesFromAFlagAFileOrStandardInput) {
  TempDir dir;
  const std::string text = "a \xc3\xa9\n";
  const Strings args = kForward + Strings{"--format", "jsonl"};
  const Json expected = {97, 32, 195, 169, 10};
  const auto ids = [](const Result& r) { return Records(r.out).at(0)["ids"]; };
  EXPECT_EQ(ids(RunLab(args + Strings{"--prompt", text})), expected);
  EXPECT_EQ(ids(RunLab(args + Strings{"--prompt-file", WriteBytes(dir / "p", text)})), expected);
  EXPECT_EQ(ids(Process(args + Strings{"--prompt-file", "-"}).Input(text)()), expected);
  EXPECT_EQ(ids(RunLab(args + Strings{"--tokens", "97, 32,195,169,10"})), expected);
}

// --- the other verbs ---

const Strings kTokenize = {"tokenize", "--model", "tiny"};

TEST(CliTokenize, TextToIdsAndBack) {
  const std::string text = "Hi \xe2\x82\xac\t<|im_end|>\n'quoted'";
  const Result ids = RunLab(kTokenize + Strings{"--prompt", text, "--format", "jsonl"});
  EXPECT_EQ(ids.code, 0);
  const auto tokens = Json::parse(ids.out)["tokens"].get<std::vector<int>>();
  const std::string list = fmt::format("{}", fmt::join(tokens, ","));
  ExpectHas(RunLab(kTokenize + Strings{"--prompt", text}).out,
            {std::to_string(tokens.size()) + " tokens: " + list + "\n", "'<|im_end|>'"});
  const Strings back = kTokenize + Strings{"--decode", "--tokens", list};
  EXPECT_EQ(RunLab(back).out, text + "\n");
  EXPECT_EQ(Json::parse(RunLab(back + Strings{"--format", "jsonl"}).out)["text"], text);
}

TEST(CliTokenize, ChatWrapsAUserTurn) {
  const Result r = RunLab(kTokenize + Strings{"--chat", "--prompt", "Hi", "--format", "jsonl"});
  const auto tokens = Json::parse(r.out)["tokens"].get<std::vector<int>>();
  const Result text = RunLab(
      kTokenize + Strings{"--decode", "--tokens", fmt::format("{}", fmt::join(tokens, ","))});
  EXPECT_TRUE(text.out.starts_with("<|im_start|>system\nYou are Qwen")) << text.out;
  EXPECT_TRUE(text.out.ends_with("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n\n"));
  EXPECT_EQ(tokens.front(), 385) << "one token, not twelve bytes";
}

TEST(CliTokenize, JsonLinesThereAndBack) {
  TempDir dir;
  Strings texts = {"one", "", "<|im_start|>", "\xf0\x9f\x98\x80", "line\nbreak", "\"\\", "  x  "};
  std::string lines;
  for (const std::string& text : texts) lines += Json({{"text", text}}).dump() + "\n";
  const Result there = RunLab(kTokenize + Strings{"--jsonl", WriteBytes(dir / "in", lines + "\n")});
  EXPECT_EQ(there.code, 0) << there.err;
  EXPECT_EQ(Lines(there.out).size(), texts.size());
  const Result back = Process(kTokenize + Strings{"--decode", "--jsonl", "-"}).Input(there.out)();
  EXPECT_EQ(back.code, 0) << back.err;
  EXPECT_EQ(back.out, lines);
}

TEST(CliTokenize, BadJsonLinesAreNamed) {
  TempDir dir;
  const struct {
    const char *line, *said;
    bool decode;
  } cases[] = {{"{", "not a JSON object with \"text\"", false},
               {"[1]", "not a JSON object with \"text\"", false},
               {"{\"texts\": \"x\"}", "not a JSON object with \"text\"", false},
               {"{\"text\": 1}", "\"text\" is not a string", false},
               {"{\"text\": \"\\ud800\"}", "not a JSON object", false},
               {"{\"text\": \"x\"}", "not a JSON object with \"tokens\"", true},
               {"{\"tokens\": 1}", "\"tokens\" is not a list", true},
               {"{\"tokens\": [1, 512]}", "512 is no token", true},
               {"{\"tokens\": [-1]}", "-1 is no token", true},
               {"{\"tokens\": [1.5]}", "1.5 is no token", true},
               {"{\"tokens\": [\"a\\nb\"]}", "is no token", true}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.line);
    const std::string good = c.decode ? "{\"tokens\": [97]}\n" : "{\"text\": \"a\"}\n";
    const std::string path = WriteBytes(dir / "in", good + c.line + "\n");
    const Strings decode = c.decode ? Strings{"--decode"} : Strings{};
    const Result r = RunLab(kTokenize + Strings{"--jsonl", path} + decode);
    EXPECT_EQ(r.code, 2);
    EXPECT_EQ(Lines(r.out).size(), 1u) << "the good line before it";
    ExpectHas(r.err, {path + ": line 2: ", c.said});
  }
}

TEST(CliInspect, AModel) {
  const Result text = RunLab({"inspect", "tiny"});
  EXPECT_EQ(text.code, 0);
  ExpectHas(text.out, {"GGUF version 3", "qwen2.block_count", "[512 strings]", "blk.27.ffn_down",
                       "512 x 256", "Q6_K", "read for each decoded token: "});
  const auto records = Records(RunLab({"inspect", "tiny", "--format", "jsonl"}).out);
  const WeightFile gguf = ReadGguf(FileBytes::Borrow("tiny", TinyGguf()));
  EXPECT_EQ(OfKind(records, "tensor").size(), gguf.tensors().size());
  EXPECT_EQ(OfKind(records, "metadata").size(), gguf.metadata().size());
  EXPECT_EQ(records.at(0)["bytes"], TinyGguf().size());
  uint64_t bytes = 0;
  for (const Json& type : OfKind(records, "type")) bytes += type["bytes"].get<uint64_t>();
  EXPECT_EQ(bytes, TinyGguf().size() - gguf.data_offset());
  const uint64_t per_token = records.back()["bytes_per_token"];
  EXPECT_LT(per_token, bytes);
  ExpectHas(text.out, {"read for each decoded token: " + std::to_string(per_token) + " bytes"});
}

TEST(CliInspect, AFileThatIsNoWholeModel) {
  const std::string path = std::string(kGoldenDir) + "/every_type.gguf";
  const Result r = RunLab({"inspect", path});
  EXPECT_EQ(r.code, 0) << r.err;
  ExpectHas(r.out, {"t.BF16", "24 x 512", "Q5_0", "not a model that lab can run",
                    "'qwen2.block_count' is missing"});
  const auto records = Records(RunLab({"inspect", path, "--format", "jsonl"}).out);
  EXPECT_EQ(OfKind(records, "tensor").size(), 9u);
  EXPECT_TRUE(records.back()["bytes_per_token"].is_null());
  EXPECT_EQ(RunLab({"forward", "--model", path}).code, 2);
}

TEST(CliList, EachListAsTextAndAsJsonLines) {
  const struct {
    const char* what;
    size_t least;
    Strings has, keys;
  } lists[] = {{"taps", Taps().size(), {"ffn_swiglu", "l_out", "final_norm"}, {"tap", "scope"}},
               {"kernels", 24, {"gqa_attention", "oracle", "MatvecRef"}, {"op", "contract"}},
               {"devices", 2, {"cpu", "cuda"}, {"device", "detail"}}};
  for (const auto& list : lists) {
    SCOPED_TRACE(list.what);
    const Result text = RunLab({"list", list.what});
    EXPECT_EQ(text.code, 0);
    ExpectHas(text.out, list.has);
    const Result jsonl = RunLab({"list", list.what, "--format", "jsonl"});
    const auto records = Records(jsonl.out);
    EXPECT_GE(records.size(), list.least);
    EXPECT_EQ(records.size() + 1, Lines(text.out).size());
    ExpectHas(jsonl.out, list.has);
    for (const Json& record : records)
      for (const std::string& key : list.keys) EXPECT_TRUE(record.contains(key)) << record;
  }
}

}  // namespace
}  // namespace lab::cli_test
