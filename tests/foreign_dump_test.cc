// Dumps of other programs: their names, shapes and types, packed files, and files that lie.
#include "tests/foreign_dump.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>

#include "lab/error.h"
#include "lab/gzip.h"
#include "lab/name_map.h"

namespace lab {
namespace {

// "L03.q_bias", or "" for a name that nothing matches.
std::string PathOf(const NameMap& names, std::string_view tensor) {
  const auto named = names.Find(tensor);
  return named ? TapPath(named->tap, named->layer) : "";
}

TEST(NameMap, BuiltInNames) {
  const std::pair<const char*, const char*> names[] = {
      {"L03.ffn_swiglu", "L03.ffn_swiglu"},
      {"L3.ffn_swiglu", "L03.ffn_swiglu"},
      {"embedding", "embedding"},
      {"model.embed_tokens", "embedding"},
      {"model.layers.3.self_attn.q_proj", "L03.q_bias"},
      {"layers.3.self_attn.q_proj.output", "L03.q_bias"},
      {"model.layers.12.mlp.down_proj:input", "L12.ffn_swiglu"},
      {"model.layers.12.mlp.down_proj.input", "L12.ffn_swiglu"},
      {"model.layers.12.mlp.down_proj", "L12.ffn_out"},
      {"model.layers.12", "L12.layer_out"},
      {"model.norm", "final_norm"},
      {"lm_head", "lm_head"},
      {"hidden_states.0", "embedding"},
      {"hidden_states[4]", "L03.layer_out"},
      {"Qcur-3 (MUL_MAT)", "L03.q_proj"},
      {"Qcur-3 (ROPE)", "L03.q_rope"},
      {"Qcur-3", ""},  // three values have this name
      {"l_out-0", "L00.layer_out"},
      {"ffn_swiglu-27", "L27.ffn_swiglu"},
      {"result_output", "lm_head"},
      {"L03.embedding", ""},
      {"ffn_swiglu", ""},
      {"model.layers.x.mlp.gate_proj", ""},
      {"model.layers.3.mlp.gate_proj.", ""},
      {"L99999.ffn_up", ""},
      {"", ""}};
  for (const auto& [name, path] : names) EXPECT_EQ(PathOf(NameMap::BuiltIn(), name), path) << name;
  EXPECT_EQ(PathOf(NameMap::BuiltIn(), "L1.ffn_up" + std::string(1 << 20, 'x')), "");
}

NameMap FromToml(const std::string& text) {
  const TempDir dir;
  return NameMap::Read(WriteBytes(dir / "names.toml", text));
}

TEST(NameMap, OwnNamesGoFirst) {
  const NameMap names = FromToml(
      "tensors = [\n"
      "  {name = '{tap}.L{layer}'},\n"
      "  {name = 'model.layers.{layer}', tap = 'ffn_out', shift = 1},\n"
      "  {name = 'logits.last', tap = 'lm_head'}]\n");
  EXPECT_EQ(PathOf(names, "k_rope.L3"), "L03.k_rope");
  EXPECT_EQ(PathOf(names, "model.layers.3"), "L04.ffn_out");
  EXPECT_EQ(PathOf(names, "logits.last"), "lm_head");
  EXPECT_EQ(PathOf(names, "model.norm"), "final_norm");
}

void ExpectError(const std::function<void()>& act, const std::vector<std::string>& said) {
  try {
    act();
    ADD_FAILURE() << said[0];
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), kUsage);
    const std::string what = error.what();
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    for (const std::string& part : said)
      EXPECT_NE(what.find(part), std::string::npos) << "lacks: " << part << "\nin: " << what;
  }
}

TEST(NameMap, BadFilesNameTheirLine) {
  const std::pair<const char*, std::vector<std::string>> files[] = {
      {"tensors = [\n", {"names.toml: line 1"}},
      {"token = 'ids'\n", {"line 1", "unknown key 'token'", "did you mean 'tokens'"}},
      {"tokens = 'ids'\n", {"no list 'tensors'"}},
      {"tensors = []\n", {"no list 'tensors'"}},
      {"tensors = [1]\n", {"line 1", "no table"}},
      {"tensors = [\n{tap = 'ffn_up'}]\n", {"line 2", "has no name"}},
      {"tensors = [{name = 'a'}]\n", {"'a' needs a tap"}},
      {"tensors = [{name = 'a.{tap}', tap = 'lm_head'}]\n", {"needs a tap: either"}},
      {"tensors = [{name = 'a', tap = 'ffn_upp'}]\n",
       {"no tap 'ffn_upp'", "did you mean 'ffn_up'"}},
      {"tensors = [{name = 'a', tap = 'ffn_up'}]\n", {"ffn_up is in a layer"}},
      {"tensors = [{name = 'a{layer}', tap = 'lm_head'}]\n", {"lm_head is not in a layer"}},
      {"tensors = [{name = 'a{layer', tap = 'ffn_up'}]\n", {"are the fields"}},
      {"tensors = [{name = 'a{lay}', tap = 'ffn_up'}]\n", {"are the fields"}},
      {"tensors = [{name = 'a}{layer}', tap = 'ffn_up'}]\n", {"are the fields"}},
      {"tensors = [{name = 'a{layer}', tap = 'ffn_up', shift = 1.5}]\n", {"shift is no small"}},
      {"tensors = [{name = 'a{layer}', tap = 'ffn_up', axes = 'token'}]\n", {"neither token and"}},
      {"tensors = [{name = 'a{layer}', tap = 'ffn_up', axes = 'time dim'}]\n", {"unknown 'time'"}},
      {"tensors = [{name = 'a{layer}', tap = 'ffn_up', axis = 1}]\n", {"unknown key 'axis'"}},
      {"reversed_shapes = 1\ntensors = []\n", {"line 1", "neither true nor false"}}};
  for (const auto& [text, said] : files) ExpectError([&] { FromToml(text); }, said);
}

// --- shapes and types ---

std::vector<float> Ramp(size_t n) {
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = static_cast<float>(i) + 0.1f;
  return values;
}

RunRecord ReadDump(const Dump& dump, const std::map<std::string, std::string>& metadata = {},
                   const NameMap& names = NameMap::BuiltIn()) {
  const TempDir dir;
  return ReadRun(WriteDump(dir / "dump", dump, metadata), names);
}

DumpTensor Ids(std::vector<size_t> shape, const std::vector<int64_t>& ids) {
  return {"I64", std::move(shape), BytesOfValues(ids)};
}

// Where value number i of [token, head, dim] = [2, 3, 4] went.
void ExpectRamp(const RunRecord& run, Tap tap,
                const std::function<size_t(size_t, size_t, size_t)>& at) {
  ASSERT_EQ(run.report.unexplained, 0u) << run.report.first_of_them.at(0);
  for (size_t t = 0; t < 2; ++t)
    for (size_t h = 0; h < 3; ++h)
      for (size_t i = 0; i < 4; ++i) {
        const auto& row = run.tokens.at({tap, 0, t}).row;
        ASSERT_EQ(row->size(), 12u);
        EXPECT_EQ(row->At(h * 4 + i), static_cast<float>(at(t, h, i)) + 0.1f);
      }
}

TEST(ForeignDump, ShapesAreUnderstood) {
  const auto token_first = [](size_t t, size_t h, size_t i) { return (t * 3 + h) * 4 + i; };
  const auto head_first = [](size_t t, size_t h, size_t i) { return (h * 2 + t) * 4 + i; };
  const auto read = [](std::vector<size_t> shape) {
    return ReadDump({{"ids", Ids({1, 2}, {5, 6})}, {"L0.q_rope", FloatTensor(shape, Ramp(24))}});
  };
  ExpectRamp(read({2, 12}), Tap::q_rope, token_first);
  ExpectRamp(read({1, 2, 12}), Tap::q_rope, token_first);
  ExpectRamp(read({2, 3, 4}), Tap::q_rope, token_first);
  ExpectRamp(read({1, 2, 3, 4}), Tap::q_rope, token_first);
  ExpectRamp(read({3, 2, 4}), Tap::q_rope, head_first);
  ExpectRamp(read({1, 3, 2, 4}), Tap::q_rope, head_first);

  const auto named = [&](const std::string& how, std::vector<size_t> shape) {
    return ReadDump({{"q0", FloatTensor(shape, Ramp(24))}}, {{"ids", "5,6"}}, FromToml(how));
  };
  ExpectRamp(
      named("tensors = [{name = 'q{layer}', tap = 'q_rope', axes = 'channel token'}]", {12, 2}),
      Tap::q_rope, [](size_t t, size_t h, size_t i) { return (h * 4 + i) * 2 + t; });
  ExpectRamp(
      named("tensors = [{name = 'q{layer}', tap = 'q_rope', axes = 'dim head token'}]", {4, 3, 2}),
      Tap::q_rope, [](size_t t, size_t h, size_t i) { return (i * 3 + h) * 2 + t; });
  ExpectRamp(
      named("reversed_shapes = true\ntensors = [{name = 'q{layer}', tap = 'q_rope'}]", {4, 3, 2}),
      Tap::q_rope, token_first);
}

TEST(ForeignDump, WhatIsNotUnderstoodIsListed) {
  const RunRecord run = ReadDump({{"input_ids", Ids({3}, {1, 2, 3})},
                                  {"L0.ffn_up", FloatTensor({3, 4}, Ramp(12))},
                                  {"L0.ffn_gate", FloatTensor({2, 4}, Ramp(8))},
                                  {"L0.q_rope", FloatTensor({3, 3, 4}, Ramp(36))},
                                  {"L0.k_rope", FloatTensor({2, 3, 4}, Ramp(24))},
                                  {"layers.0.mlp.up_proj", FloatTensor({3, 4}, Ramp(12))},
                                  {"L0.ffn_out", {"I8", {3, 4}, std::vector<uint8_t>(12)}},
                                  {"rotary.cos", FloatTensor({3, 4}, Ramp(12))},
                                  {"lm_head", FloatTensor({1, 8}, Ramp(8))}});
  EXPECT_EQ(run.report.unexplained, 5u);
  std::string all;
  for (const std::string& line : run.report.first_of_them) all += line + "\n";
  for (const char* part :
       {"'L0.ffn_gate', F32 [2, 4]: 2 tokens, the run has 3",
        "'L0.q_rope', F32 [3, 3, 4]: its axes",
        "'layers.0.mlp.up_proj', F32 [3, 4]: 'L0.ffn_up' is L00.ffn_up already",
        "'L0.ffn_out', I8 [3, 4]: not F64", "'rotary.cos', F32 [3, 4]: unknown name"})
    EXPECT_NE(all.find(part), std::string::npos) << part << "\nin: " << all;
  EXPECT_EQ(run.header.ids, (std::vector<int32_t>{1, 2, 3}));
  // One row of several is the last token's.
  EXPECT_TRUE(run.tokens.contains({Tap::lm_head, kNoLayer, 2}));
  EXPECT_FALSE(run.tokens.contains({Tap::lm_head, kNoLayer, 0}));
  EXPECT_TRUE(run.tokens.contains({Tap::k_rope, 0, 2}));
}

TEST(ForeignDump, HiddenStatesEndWithTheNorm) {
  Dump dump;
  for (const char* name : {"hidden_states.0", "hidden_states.1", "hidden_states.2"})
    dump[name] = FloatTensor({1, 2, 4}, Ramp(8));
  RunRecord run = ReadDump(dump);
  EXPECT_EQ(run.header.layers, 2u);
  EXPECT_TRUE(run.tokens.contains({Tap::embedding, kNoLayer, 1}));
  EXPECT_TRUE(run.tokens.contains({Tap::layer_out, 0, 1}));
  EXPECT_TRUE(run.tokens.contains({Tap::final_norm, kNoLayer, 1}));
  EXPECT_FALSE(run.tokens.contains({Tap::layer_out, 1, 1}));
  dump.erase("hidden_states.1");  // some of them only: nobody knows which is the last
  run = ReadDump(dump);
  EXPECT_FALSE(run.header.layers);
  EXPECT_TRUE(run.tokens.contains({Tap::layer_out, 1, 1}));
}

TEST(ForeignDump, TheGoldenTensorsByOneLineOfNames) {
  const RunRecord run = ReadRun(
      GoldenPath("what-is-2+2.safetensors"),
      FromToml("tensors = [{name = '{tap}.L{layer}'}, {name = 'logits.last', tap = 'lm_head'}]"));
  EXPECT_EQ(run.header.format, "safetensors dump");
  EXPECT_EQ(run.report.unexplained, 0u) << run.report.first_of_them.at(0);
  EXPECT_NEAR(run.tokens.at({Tap::ffn_swiglu, 3, 0}).figures.std->value, 1.5479, 1e-4);
}

TEST(ForeignDump, LyingFilesGetOneLine) {
  const Dump good = {{"L0.ffn_up", FloatTensor({2, 4}, Ramp(8))}};
  const auto with = [&](const std::string& name, DumpTensor tensor) {
    Dump dump = good;
    dump[name] = std::move(tensor);
    return dump;
  };
  ExpectError([&] { ReadDump(with("ids", Ids({2}, {1, -2}))); }, {"dump: tensor 'ids': -2 at 1"});
  ExpectError([&] { ReadDump(with("ids", Ids({2, 2}, {1, 2, 3, 4}))); }, {"of one sequence"});
  ExpectError([&] { ReadDump(good, {{"ids", "1,x"}}); }, {"metadata 'ids'"});
  // Every prefix, and every byte of the header changed, is read or refused in one line.
  const TempDir dir;
  const std::string bytes = ReadBytes(WriteDump(dir / "good", good));
  const auto try_read = [&](const std::string& text) {
    try {
      ReadRun(WriteBytes(dir / "bad", text));
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    }
  };
  for (size_t n = 0; n < bytes.size(); ++n) try_read(bytes.substr(0, n));
  for (size_t i = 0; i < bytes.size() - 32; ++i)
    for (const char change : {'\x01', '\x20', '\x7f'}) {
      std::string changed = bytes;
      changed[i] = static_cast<char>(changed[i] ^ change);
      try_read(changed);
    }
}

// --- gzip ---

std::vector<uint8_t> Zipped(const std::string& text) {
  std::vector<uint8_t> out(text.size() + 1000);
  z_stream z = {};
  EXPECT_EQ(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = out.data();
  z.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

std::string AsString(const std::vector<uint8_t>& bytes) {
  return {bytes.begin(), bytes.end()};
}

TEST(Gzip, UnpacksAllMembersUpToABound) {
  std::string text(3 << 20, 'a');  // more than one chunk, and 1000 times its packed size
  for (size_t i = 0; i < text.size(); i += 7919) text[i] = static_cast<char>(i);
  const std::vector<uint8_t> packed = Zipped(text);
  EXPECT_TRUE(IsGzip(packed));
  EXPECT_EQ(AsString(Unzip("f", packed, text.size())), text);
  std::vector<uint8_t> twice = packed;
  twice.insert(twice.end(), packed.begin(), packed.end());
  EXPECT_EQ(AsString(Unzip("f", twice, 2 * text.size())), text + text);
  ExpectError([&] { Unzip("f", twice, 2 * text.size() - 1); }, {"f: unpacks to more than"});
  ExpectError([&] { Unzip("f", Zipped(""), 10); }, {"f: the file is empty once unpacked"});
}

TEST(Gzip, DamageGetsOneLine) {
  const std::vector<uint8_t> packed = Zipped(std::string(5000, 'x') + "end");
  for (size_t n = 3; n < packed.size(); ++n)
    ExpectError([&] { Unzip("f", std::span(packed).first(n), 1 << 20); },
                {"f: the gzip file is cut"});
  std::vector<uint8_t> changed = packed;
  changed[packed.size() - 6] ^= 1;  // of the checksum
  ExpectError([&] { Unzip("f", changed, 1 << 20); }, {"f: offset", "damaged"});
}

TEST(Gzip, PackedLogsAndDumpsAreReadAsTheyAre) {
  const RunRecord packed = ReadRun(GoldenPath("llama-debug.what-is-2+2.txt.gz"));
  EXPECT_EQ(packed.header.format, "llama.cpp log");
  EXPECT_EQ(packed.report.unexplained, 0u);
  EXPECT_TRUE(IsRunFile(GoldenPath("llama-debug.what-is-2+2.txt.gz")));
  const TempDir dir;
  const std::string dump = WriteDump(dir / "dump", {{"L0.ffn_up", FloatTensor({2, 4}, Ramp(8))}});
  const std::string zipped = WriteBytes(dir / "dump.gz", AsString(Zipped(ReadBytes(dump))));
  EXPECT_EQ(ReadRun(zipped).tokens.at({Tap::ffn_up, 0, 1}).row->At(3), 7.1f);
}

}  // namespace
}  // namespace lab
