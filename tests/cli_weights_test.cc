// Weight files on the command line: a run from any format, and lab diff of two of them.
#include "tests/apr_pieces.h"
#include "tests/cli_run.h"
#include "tests/golden.h"

namespace lab::cli_test {
namespace {

using damaged_test::AprFile;

std::string HfName(const std::string& gguf) {
  for (const auto& [name, hf] : damaged_test::MicroTensorNames())
    if (name == gguf) return hf;
  const size_t dot = gguf.find('.', 4);  // of blk.7.
  const std::string layer0 = HfName("blk.0" + gguf.substr(dot));
  return fmt::format("model.layers.{}.{}", gguf.substr(4, dot - 4),
                     layer0.substr(std::strlen("model.layers.0.")));
}

// The tiny model as `apr import` writes it.
AprFile TinyApr() {
  static const WeightFile tiny = ReadWeightFile(OpenModelBytes("tiny"));
  AprFile apr;
  for (const WeightTensor& t : tiny.tensors()) {
    std::vector<uint64_t> dims(t.dims.begin(), t.dims.begin() + t.n_dims);
    std::reverse(dims.begin(), dims.end());
    apr.tensors.push_back({HfName(t.name),
                           static_cast<uint8_t>(t.block->type),
                           dims,
                           std::string(AsText({t.data, t.bytes})),
                           {},
                           {},
                           {}});
  }
  damaged_test::SortByName(apr);
  const auto texts = [](const MetaArray* a) {
    return std::vector<std::string>(a->strings.begin(), a->strings.end());
  };
  std::vector<int64_t> types;
  for (size_t i = 0; i < 512; ++i)
    types.push_back(tiny.Integers("tokenizer.ggml.token_type")->Integer(i));
  apr.metadata = {{"architecture", "qwen2"},
                  {"num_layers", 28},
                  {"max_position_embeddings", *tiny.Unsigned("qwen2.context_length")},
                  {"hidden_size", 256},
                  {"intermediate_size", 768},
                  {"num_heads", 4},
                  {"num_kv_heads", 2},
                  {"rope_theta", *tiny.Number("qwen2.rope.freq_base")},
                  {"rms_norm_eps", *tiny.Number("qwen2.attention.layer_norm_rms_epsilon")},
                  {"tokenizer.vocabulary", texts(tiny.Strings("tokenizer.ggml.tokens"))},
                  {"tokenizer.merges", texts(tiny.Strings("tokenizer.ggml.merges"))},
                  {"tokenizer.token_type", types}};
  return apr;
}

std::string Write(const TempDir& dir, const AprFile& apr) {
  return WriteBytes(dir / "tiny.apr", AsText(apr.Build()));
}

std::vector<float> Values(const AprFile::Tensor& t) {
  WeightTensor w;
  w.SetGgufType(t.code);
  std::vector<uint64_t> dims(t.dims.rbegin(), t.dims.rend());
  EXPECT_EQ(w.SetShape(dims.size(), dims.data()), "");
  w.data = reinterpret_cast<const uint8_t*>(t.data.data());
  std::vector<float> values(w.elements());
  DequantFlat(w, 0, values.size(), values.data());
  return values;
}

// The upper half of a float32: bfloat16, rounded towards zero.
uint16_t UpperHalf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

// Replaces a matrix by its transposed values, as bfloat16.
void Transpose(AprFile::Tensor& t, bool shape_too) {
  const std::vector<float> values = Values(t);
  const size_t rows = t.dims[0], cols = t.dims[1];
  t.code = 30;
  t.data.clear();
  for (size_t c = 0; c < cols; ++c)
    for (size_t r = 0; r < rows; ++r) t.data += damaged_test::Raw(UpperHalf(values[r * cols + c]));
  if (shape_too) std::swap(t.dims[0], t.dims[1]);
}

struct Diff {
  int code;
  std::vector<Json> tensors;
  Json summary;
  Json Of(const std::string& name) const {
    for (const Json& t : tensors)
      if (t["tensor"] == name) return t;
    return {};
  }
};

Diff DiffWithTiny(const std::string& path, const Strings& flags = {}) {
  const Result r = RunLab(Strings{"diff", "tiny", path, "--format", "jsonl"} + flags);
  EXPECT_EQ(r.err, "");
  const auto records = Records(r.out);
  return {r.code, OfKind(records, "tensor"), records.back()};
}

// The tensors with a finding, by name.
std::map<std::string, std::string> Findings(const Diff& diff) {
  std::map<std::string, std::string> found;
  for (const Json& t : diff.tensors)
    if (t["finding"] != "none") found[t["tensor"]] = t["finding"];
  return found;
}
using Found = std::map<std::string, std::string>;

constexpr const char* kUp = "blk.7.ffn_up.weight";
constexpr const char* kGate = "blk.7.ffn_gate.weight";
constexpr const char* kOut = "blk.7.attn_output.weight";
constexpr const char* kDown = "blk.7.ffn_down.weight";

TEST(CliWeights, AnAprFileRunsWithTheBitsOfTheGgufFile) {
  TempDir dir;
  const std::string path = Write(dir, TinyApr());
  const auto dump_of = [&](const std::string& model, const Strings& flags) {
    const Result r = RunLab(
        Strings{"forward", "--model", model, "--prompt", "What is 2+2?", "--dump", dir / "dump"} +
        flags);
    EXPECT_EQ(r.code, 0) << r.err;
    const Safetensors dump(dir / "dump");
    std::string bytes;
    for (const SafetensorsEntry& e : dump.entries()) bytes += e.name + std::string(AsText(e.data));
    return bytes;
  };
  for (const Strings& flags : {Strings{"--backend", "ref"}, {"--backend", "hwy"}}) {
    const std::string gguf = dump_of("tiny", flags);
    EXPECT_GT(gguf.size(), 1u << 20);
    EXPECT_TRUE(gguf == dump_of(path, flags)) << flags[1];
  }
  const Result check = RunLab({"check", "--model", path, "--layer", "3", "--case", "*rms*,*silu*"});
  EXPECT_NE(check.code, 2) << check.err;
}

TEST(CliWeights, InspectShowsTheFileInItsOwnWords) {
  TempDir dir;
  AprFile apr = TinyApr();
  const Result r = RunLab({"inspect", Write(dir, apr)});
  EXPECT_EQ(r.code, 0) << r.err;
  ExpectHas(r.out,
            {"APR version 2", "checksum at the end: right", "num_kv_heads",
             "model.layers.3.mlp.down_proj.weight", "256 x 768", "read for each decoded token"});
  damaged_test::Bytes bytes = apr.Build();
  bytes[bytes.size() - 5000] ^= 1;
  ExpectHas(RunLab({"inspect", WriteBytes(dir / "bad.apr", AsText(bytes))}).out,
            {"checksum at the end: WRONG"});
}

TEST(CliDiff, EqualBytesInAnotherFormatAreIdentical) {
  TempDir dir;
  const std::string path = Write(dir, TinyApr());
  const Diff diff = DiffWithTiny(path, {"--min-cos", "1"});
  EXPECT_EQ(diff.code, 0);
  EXPECT_EQ(diff.tensors.size(), 339u);
  EXPECT_EQ(diff.summary["identical"], 339);
  EXPECT_EQ(Findings(diff), Found{});
  ExpectHas(RunLab({"diff", "tiny", path}).out, {"339 of 339 tensors identical", "APR version 2"});
}

TEST(CliDiff, OneFlippedBitIsNamed) {
  TempDir dir;
  AprFile apr = TinyApr();
  // Row 5 of 256 values is one block of Q4_K; its byte 25 holds values 9 and 41.
  char& byte = apr.At(HfName(kUp)).data[5 * 144 + 25];
  byte = static_cast<char>(byte ^ 0x10);
  const Diff diff = DiffWithTiny(Write(dir, apr));
  EXPECT_EQ(diff.code, 1);
  EXPECT_EQ(Findings(diff), (Found{{kUp, "few_bytes"}}));
  EXPECT_EQ(diff.tensors.at(0)["tensor"], kUp) << "worst first";
  Json t = diff.Of(kUp);
  EXPECT_EQ(t["bytes_differing"], 1);
  EXPECT_EQ(t["first_byte"], 5 * 144 + 25);
  EXPECT_EQ(t["row"], 5);
  EXPECT_EQ(t["column"], 41);
  EXPECT_EQ(t["byte_b"].get<int>(), t["byte_a"].get<int>() ^ 0x10);
  EXPECT_DOUBLE_EQ(t["max_abs"], std::abs(t["value_a"].get<double>() - t["value_b"].get<double>()));
  EXPECT_NEAR(t["rms"], t["max_abs"].get<double>() / std::sqrt(256 * 768), 1e-12);
  ExpectHas(t["text"], {"row 5, block 0 (columns 0 to 255), byte 25 (qs)"});
}

TEST(CliDiff, TransposedTensorsAreNamed) {
  TempDir dir;
  AprFile apr = TinyApr();
  Transpose(apr.At(HfName(kOut)), false);  // square: the shape cannot tell
  Transpose(apr.At(HfName(kDown)), true);  // 768 x 256 instead of 256 x 768
  Transpose(apr.At(HfName(kUp)), false);   // not square, and the shape lies
  std::swap(apr.At(HfName(kGate)).dims[0], apr.At(HfName(kGate)).dims[1]);
  const Diff diff = DiffWithTiny(Write(dir, apr));
  EXPECT_EQ(diff.code, 1);
  EXPECT_EQ(Findings(diff), (Found{{kOut, "transposed"},
                                   {kDown, "transposed"},
                                   {kUp, "transposed"},
                                   {kGate, "dims_exchanged"}}));
  for (const char* name : {kOut, kDown, kUp}) {
    EXPECT_GT(diff.Of(name)["explained_cosine"].get<double>(), 0.9999) << name;
    EXPECT_LT(diff.Of(name)["cosine"].get<double>(), 0.1) << name;
  }
  EXPECT_EQ(diff.Of(kGate)["cosine"], 1.0);
}

TEST(CliDiff, ExchangedTensorsAreNamed) {
  TempDir dir;
  AprFile apr = TinyApr();
  const auto exchange = [&](const std::string& a, const std::string& b) {
    std::swap(apr.At(HfName(a)).data, apr.At(HfName(b)).data);
  };
  exchange(kUp, kGate);
  exchange("blk.3.attn_norm.weight", "blk.20.attn_norm.weight");  // cosine 0.98 to each other
  apr.At(HfName("blk.5.attn_k.weight")).data = apr.At(HfName("blk.6.attn_k.weight")).data;
  const Diff diff = DiffWithTiny(Write(dir, apr));
  EXPECT_EQ(diff.code, 1);
  EXPECT_EQ(Findings(diff), (Found{{kUp, "another_tensor"},
                                   {kGate, "another_tensor"},
                                   {"blk.3.attn_norm.weight", "another_tensor"},
                                   {"blk.20.attn_norm.weight", "another_tensor"},
                                   {"blk.5.attn_k.weight", "another_tensor"}}));
  EXPECT_EQ(diff.Of(kUp)["other"], kGate);
  EXPECT_EQ(diff.Of(kUp)["exchanged"], true);
  EXPECT_EQ(diff.Of("blk.3.attn_norm.weight")["other"], "blk.20.attn_norm.weight");
  EXPECT_EQ(diff.Of("blk.5.attn_k.weight")["other"], "blk.6.attn_k.weight");
  EXPECT_EQ(diff.Of("blk.5.attn_k.weight")["exchanged"], false);
}

TEST(CliDiff, AnotherTypeIsJudgedByItsCosine) {
  TempDir dir;
  AprFile apr = TinyApr();
  AprFile::Tensor& t = apr.At(HfName(kUp));
  std::string rounded;                 // to bfloat16, towards zero
  long double ab = 0, aa = 0, bb = 0;  // sums of 196608 terms: more exact than what they judge
  for (const float value : Values(t)) {
    const uint32_t bits = uint32_t{UpperHalf(value)} << 16;
    float b;
    std::memcpy(&b, &bits, sizeof b);
    rounded += damaged_test::Raw(UpperHalf(value));
    ab += double{value} * b, aa += double{value} * value, bb += double{b} * b;
  }
  t.code = 30;
  t.data = rounded;
  const std::string path = Write(dir, apr);
  const auto cosine = static_cast<double>(ab / std::sqrt(aa * bb));
  ASSERT_LT(cosine, 0.999999);
  ASSERT_GT(cosine, 0.9999);
  const Diff loose = DiffWithTiny(path, {"--min-cos", "0.999"});
  EXPECT_EQ(loose.code, 0);
  EXPECT_EQ(Findings(loose), Found{});
  EXPECT_NEAR(loose.Of(kUp)["cosine"], cosine, 1e-13);
  EXPECT_EQ(loose.tensors.at(0)["tensor"], kUp);
  const Diff tight = DiffWithTiny(path, {"--min-cos", "0.999999"});
  EXPECT_EQ(tight.code, 1);
  EXPECT_EQ(tight.summary["below_min_cos"], 1);
  EXPECT_EQ(DiffWithTiny(path, {"--threads", "1"}).tensors,
            DiffWithTiny(path, {"--threads", "7"}).tensors);
}

TEST(CliDiff, MissingAndUnexpectedTensorsAndOtherShapes) {
  TempDir dir;
  AprFile apr = TinyApr();
  apr.Drop(HfName(kUp));
  apr.tensors.push_back({"model.layers.7.self_attn.q_norm.weight", 0, {2}, "12345678", {}, {}, {}});
  apr.At(HfName(kDown)).dims = {128, 1536};
  const Diff diff = DiffWithTiny(Write(dir, apr));
  EXPECT_EQ(diff.code, 1);
  EXPECT_EQ(
      Findings(diff),
      (Found{{kUp, "only_in_a"}, {"blk.7.attn_q_norm.weight", "only_in_b"}, {kDown, "shape"}}));
  EXPECT_EQ(RunLab({"diff", "tiny", GoldenPath("every_type.gguf")}).code, 3);
}

TEST(CliDiff, NotANumberIsBelowEveryCosine) {
  TempDir dir;
  AprFile apr = TinyApr();
  const float nan = std::nanf("");
  std::memcpy(&apr.At(HfName("blk.2.ffn_norm.weight")).data[40], &nan, sizeof nan);
  const Diff diff = DiffWithTiny(Write(dir, apr), {"--min-cos", "-1"});
  EXPECT_EQ(diff.code, 1);
  EXPECT_EQ(diff.summary["below_min_cos"], 1);
  EXPECT_EQ(diff.Of("blk.2.ffn_norm.weight")["cosine"], "NaN");
  EXPECT_EQ(diff.Of("blk.2.ffn_norm.weight")["column"], 10);
}

TEST(CliDiff, BadUse) {
  TempDir dir;
  const Case cases[] = {{{"diff", "tiny"}, 2, {"B"}},
                        {{"diff", "tiny", dir / "absent"}, 2, {"absent", "cannot open"}},
                        {{"diff", "tiny", "tiny", "--min-cos", "2"}, 2, {"--min-cos"}},
                        {{"diff", "tiny", "tiny", "--threads", "0"}, 2, {"--threads"}},
                        {{"diff", "tiny", "tiny", "--format", "x"}, 2, {"--format"}}};
  ExpectFails(cases);
}

}  // namespace
}  // namespace lab::cli_test
