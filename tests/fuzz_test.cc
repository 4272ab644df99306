// Every input of the fuzzers' corpora, findings among them, in the ordinary build; and that reading
// is bounded in memory and time.
#include "lab/case.h"
#include "lab/error.h"
#include "tests/fuzz/memory.h"
#include "tests/fuzz/targets.h"
#include "tests/paths.h"
#include "tests/test_util.h"

namespace lab::fuzz {
namespace {

std::span<const uint8_t> AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

const Target& Find(std::string_view name) {
  const auto targets = Targets();
  const auto it =
      std::find_if(targets.begin(), targets.end(), [&](const Target& t) { return t.name == name; });
  EXPECT_NE(it, targets.end()) << name;
  return *it;
}

TEST(Fuzz, EveryInputOfTheCorporaIsReadOrRefused) {
  for (const Target& target : Targets()) {
    size_t inputs = 0;
    const std::string folder = std::string(kCorpusDir) + "/" + std::string(target.name);
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      SCOPED_TRACE(entry.path());
      EXPECT_NO_THROW(RunTarget(target, AsBytes(ReadBytes(entry.path()))));
      ++inputs;
    }
    EXPECT_GT(inputs, 1u) << target.name;
  }
}

// A reader that holds on to too much, or takes what it read for refused, must not pass for a good
// one.
TEST(Fuzz, RunReportsFindings) {
  static std::vector<char> kept;
  const auto read = [](void (*f)(std::span<const uint8_t>)) {
    RunTarget({"", f}, AsBytes("12345678"));
  };
  EXPECT_NO_THROW(read([](std::span<const uint8_t>) { Fail("refused"); }));
  EXPECT_ANY_THROW(read([](std::span<const uint8_t>) { throw Error(kInternal, "x"); }));
  EXPECT_ANY_THROW(read([](std::span<const uint8_t>) { throw std::bad_alloc(); }));
  const PeakMeter meter;
  kept.resize(1000);
  if (meter.peak() == 0) return;  // nobody counts
  EXPECT_ANY_THROW(read([](std::span<const uint8_t>) { kept.resize(2 << 20); }));
}

std::string Repeat(std::string_view text, size_t times) {
  std::string all;
  for (size_t i = 0; i < times; ++i) all += text;
  return all;
}

// A reader whose time grows with the square of the size would need hours for these.
TEST(Fuzz, LongInputsAreReadInTimeAndMemory) {
  constexpr size_t n = 200'000;
  const std::string zero(1, '\0');
  const std::string header = R"({"kind":"header","ids":[)" + Repeat("1,", n) + "1]}\n";
  std::string steps = R"({"kind":"header","ids":[)" + Repeat("1,", n) + R"(1],"steps":[)";
  for (size_t i = 0; i < n; ++i)
    steps += fmt::format(R"({}{{"phase":"decode","first":{},"tokens":1}})", i ? "," : "", i);
  steps += "]}\n";
  std::string pooled = header, taps = R"({"kind":"header"})"
                                      "\n";
  for (size_t i = 0; i < n / 20; ++i) {
    pooled += fmt::format(R"({{"kind":"pooled","tap":"ffn_out","layer":{},"tokens":{}}})"
                          "\n",
                          i, n + 1);
    taps += fmt::format(R"({{"kind":"tap","tap":"ffn_out","layer":0,"token":{}}})"
                        "\n",
                        2 * i);
  }
  const struct {
    const char* target;
    std::string input;
  } inputs[] = {
      {"trace", pooled},
      {"trace", steps},
      {"trace", taps + Repeat(R"({"kind":"pooled","tap":"ffn_out","layer":0,"tokens":10000})"
                              "\n",
                              2)},
      {"trace", R"({"kind":"header","x":)" + Repeat("[", n) + Repeat("]", n) + "}\n"},
      {"trace", R"({"kind":"header","x":[)" + Repeat("[],", n) + "[]]}\n"},
      {"hf", zero + zero + R"({"__metadata__":{"x":")" + Repeat("[", n) + R"("}})"},
      {"hf", zero + zero + R"({"a":)" + Repeat("[", n) + Repeat("]", n) + "}"},
      {"case", Repeat("x=[", n) + Repeat("]", n)},
      {"case", "ids = [" + Repeat("1,", n) + "]"},
      {"dump", R"({"__metadata__":{"backend":"ref"},"embedding":{"dtype":"F32",)"
               R"("shape":[100000000000,0],"data_offsets":[0,0]}})"},
      {"llama_log", "ggml_debug: embd = (f32) GET_ROWS(x{1}, y) = {4, 65536, 1, 1}\n" +
                        Repeat("[ [ 1.0, 2.0 ],\n", n) + "sum = 1.0\n"},
      {"apr_trace", "layer,ffn_out\n" + Repeat("1,2.5\n", n)},
      {"prompt", Repeat(" ", n)},
      {"prompt", Repeat("\r\n \t", n)},
      {"prompt", Repeat("aB1!", n)},
      {"prompt", Repeat("<|im_", n)},
  };
  for (const auto& [target, input] : inputs) {
    SCOPED_TRACE(target + (": " + input.substr(0, 80)));
    EXPECT_NO_THROW(RunTarget(Find(target), AsBytes(input)));
  }
}

}  // namespace
}  // namespace lab::fuzz
