// Results read back and joined: nothing missing, nothing twice, nothing of another run.
#include "lab/results.h"

#include <fmt/format.h>

#include "lab/error.h"
#include "tests/test_util.h"

namespace lab {
namespace {

std::string Part(size_t part, size_t of, const std::string& whole = "w") {
  return fmt::format("{{\"kind\":\"verdict\",\"n\":{}}}\n", part) +
         ToLine({{"kind", "summary"},
                 {"made_by",
                  ToJson({MadeBy{fmt::format("lab check --shard {}/{} --repeat 2", part, of), "b",
                                 "m", "", part, of, whole}})}});
}

class ResultsTest : public testing::Test {
 protected:
  std::string File(const std::string& text) {
    return WriteBytes(dir_ / std::to_string(files_++), text);
  }
  // What is said of the files; "" when they are taken.
  std::string Refusal(const std::vector<std::string>& texts) {
    std::vector<std::string> paths;
    for (const std::string& text : texts) paths.push_back(File(text));
    try {
      ReadResults(paths);
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), kUsage);
      return error.what();
    }
  }
  void ExpectRefused(const std::vector<std::string>& texts, const std::string& why) {
    const std::string refusal = Refusal(texts);
    EXPECT_NE(refusal.find(why), std::string::npos) << refusal;
    EXPECT_EQ(refusal.find('\n'), std::string::npos) << refusal;
  }

  TempDir dir_;
  int files_ = 0;
};

TEST_F(ResultsTest, PartsAreJoinedInTheirOrder) {
  for (const std::vector<std::string>& texts :
       {std::vector{Part(3, 3), Part(1, 3), Part(2, 3)}, {Part(2, 3) + Part(1, 3) + Part(3, 3)}}) {
    std::vector<std::string> paths;
    for (const std::string& text : texts) paths.push_back(File(text));
    const std::vector<Results> runs = ReadResults(paths);
    ASSERT_EQ(runs.size(), 1u);
    ASSERT_EQ(runs[0].records.size(), 3u);
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(runs[0].records[i]["n"], i + 1);
    EXPECT_EQ(runs[0].made_by.size(), 3u);
    EXPECT_EQ(runs[0].kind(), "verdict");
  }
}

TEST_F(ResultsTest, RunsStayApart) {
  const auto runs =
      ReadResults({File(Part(1, 2, "x")), File(Part(1, 1, "y")), File(Part(2, 2, "x"))});
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0].records.size(), 2u);
  EXPECT_EQ(runs[1].records.size(), 1u);
}

TEST_F(ResultsTest, HolesAndDuplicatesAreRefused) {
  ExpectRefused({Part(1, 3), Part(3, 3)},
                "part 2/3 of its run is missing; make it: lab check --shard 2/3 --repeat 2");
  ExpectRefused({Part(1, 2)}, "part 2/2 of its run is missing");
  ExpectRefused({Part(2, 2)}, "part 1/2 of its run is missing");
  ExpectRefused({Part(1, 2), Part(2, 2), Part(1, 2)}, "part 1/2 for the second time");
  ExpectRefused({Part(1, 1), Part(1, 1)}, "part 1/1 for the second time");
  ExpectRefused({Part(1, 2), Part(2, 2, "other")}, "part 2/2 of its run is missing");
  ExpectRefused({Part(1, 2), Part(2, 3)}, "give the parts of one run");
}

TEST_F(ResultsTest, WhatIsNoWholePartIsRefused) {
  const std::string whole = Part(1, 1);
  ExpectRefused({whole.substr(0, whole.find('\n') + 1)}, "was cut off");
  ExpectRefused({whole + "{\"kind\":\"verdict\"}\n"}, "was cut off");
  ExpectRefused({""}, "was cut off");
  ExpectRefused({whole.substr(0, whole.size() / 2)}, "line 2: no record");
  ExpectRefused({"[1]\n"}, "line 1: no record");
  ExpectRefused({"{\"kind\":1}\n"}, "line 1: no record");
  ExpectRefused({"{\"kind\":\"summary\"}\n"}, "line 1: its summary does not say how it was made");
  ExpectRefused({"{\"kind\":\"summary\",\"made_by\":[]}\n"}, "line 1");
  ExpectRefused({Part(0, 1)}, "part 0 of 1");
  ExpectRefused({Part(3, 2)}, "part 3 of 2");
}

std::string WholeOf(std::vector<std::string> args, const std::string& model = "",
                    const std::vector<std::string>& items = {"a", "b"}) {
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  return DescribeRun(static_cast<int>(argv.size()), argv.data(), model, {}, items).whole;
}

TEST(MadeBy, PartsOfARunAreKnownByWhatTheyCompute) {
  const std::string whole = WholeOf({"check", "--op", "silu"});
  EXPECT_EQ(whole.size(), 16u);
  EXPECT_EQ(WholeOf({"check", "--shard", "1/2", "--op", "silu", "--threads=3"}), whole);
  EXPECT_EQ(WholeOf({"check", "--op", "silu", "--shard=2/2", "--format", "jsonl"}), whole);
  EXPECT_NE(WholeOf({"check", "--op", "silu", "--repeat", "2"}), whole);
  EXPECT_NE(WholeOf({"check", "--op", "silu"}, "tiny"), whole);
  EXPECT_NE(WholeOf({"check", "--op", "silu"}, "", {"a"}), whole);
}

TEST(MadeBy, CommandsCanBePasted) {
  EXPECT_EQ(ShellWord("--use=silu@3=mutant:gelu"), "--use=silu@3=mutant:gelu");
  EXPECT_EQ(ShellWord("What is 2+2?"), "'What is 2+2?'");
  EXPECT_EQ(ShellWord("it's"), "'it'\\''s'");
  EXPECT_EQ(ShellWord(""), "''");
}

}  // namespace
}  // namespace lab
