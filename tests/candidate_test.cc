// Outputs computed elsewhere: exported inputs, judged candidates, and the sub-block that is to
// blame.
#include "lab/candidate.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "lab/cli.h"
#include "lab/error.h"
#include "lab/export.h"
#include "lab/output.h"
#include "lab/redraw.h"
#include "lab/safetensors.h"
#include "reference/dequant_ref.h"
#include "tests/paths.h"

namespace lab {
namespace {

Case CommittedCase(const std::string& name) {
  for (Case& c : ReadCases(kCasesDir))
    if (c.name == name) return c;
  throw Error(kInternal, name);
}

// A plain float matvec over weights changed by `spoil`.
std::vector<float> PlainMatvec(const Case& c, void (*spoil)(std::vector<float>& w, size_t cols)) {
  std::vector<float> w(c.w.rows * c.w.cols), y;
  for (size_t r = 0; r < c.w.rows; ++r)
    DequantRow(c.w.type, c.w.row(r), c.w.cols, &w[r * c.w.cols]);
  if (spoil) spoil(w, c.w.cols);
  for (size_t t = 0; t < c.tokens; ++t)
    for (size_t r = 0; r < c.w.rows; ++r) {
      float sum = 0;
      for (size_t i = 0; i < c.w.cols; ++i) sum += w[r * c.w.cols + i] * c.x[t * c.w.cols + i];
      y.push_back(c.vector.empty() ? sum : sum + c.vector[r]);
    }
  return y;
}

class TemporaryFile {
 public:
  explicit TemporaryFile(const std::vector<SafetensorsEntry>& entries)
      : path_(testing::TempDir() + "lab_candidate_" + std::to_string(getpid()) + ".safetensors") {
    OutputFile out(path_);
    WriteSafetensors(out, entries, {});
    out.Commit();
  }
  ~TemporaryFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

SafetensorsEntry Tensor(const std::string& name, std::vector<size_t> shape,
                        const std::vector<float>& values) {
  return {name,
          "F32",
          std::move(shape),
          {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)}};
}

std::vector<CheckLine> Judge(const Case& c, const std::vector<float>& y,
                             std::optional<Contract> contract = Contract::f32) {
  const TemporaryFile file({Tensor("y", {c.tokens, c.w.rows}, y)});
  return JudgeCandidate(file.path(), {c}, contract);
}

TEST(Candidate, ARightOutputPassesUnderItsContractAlone) {
  const Case c = CommittedCase("L03.q_proj");
  const auto lines = Judge(c, PlainMatvec(c, nullptr), std::nullopt);
  ASSERT_EQ(lines.size(), 3u);
  for (const CheckLine& line : lines)
    EXPECT_EQ(line.verdict.status, line.contract == "f32" ? Status::pass : Status::fail)
        << line.contract;
}

TEST(Candidate, TheWrongSubBlockIsNamed) {
  const Case c = CommittedCase("L03.q_proj");
  const CheckLine left_out = Judge(c, PlainMatvec(c, [](auto& w, size_t cols) {
                                     std::fill_n(&w[9 * cols + 4 * 256 + 6 * 32], 32, 0.0f);
                                   }))[0];
  EXPECT_EQ(left_out.verdict.status, Status::fail);
  EXPECT_EQ(left_out.verdict.blame,
            "y row 9, columns 1216 to 1247 (super-block 4, sub-block 6): left out");
  const CheckLine scaled = Judge(c, PlainMatvec(c, [](auto& w, size_t cols) {
                                   for (size_t r = 0; r < 64; ++r)
                                     for (size_t i = 0; i < 32; ++i) w[r * cols + 32 + i] *= 1.5f;
                                 }))[0];
  EXPECT_NE(scaled.verdict.blame.find("columns 32 to 63 (super-block 0, sub-block 1): weights "
                                      "read as 1.5 w"),
            std::string::npos)
      << scaled.verdict.blame;
  EXPECT_NE(scaled.verdict.blame.find("of 64 rows are wrong"), std::string::npos);
}

TEST(Candidate, AWholeSuperBlockIsNamed) {
  const Case c = CommittedCase("L03.q_proj");
  const CheckLine line = Judge(c, PlainMatvec(c, [](auto& w, size_t cols) {
                                 std::fill_n(&w[3 * cols + 5 * 256], 256, 0.0f);
                               }))[0];
  EXPECT_EQ(line.verdict.blame, "y row 3, columns 1280 to 1535 (super-block 5): left out");
}

// An error that no part of the weights explains must not be blamed on one.
TEST(Candidate, NoiseIsBlamedOnNothing) {
  const Case c = CommittedCase("L03.q_proj");
  std::vector<float> y = PlainMatvec(c, nullptr);
  for (size_t i = 0; i < y.size(); ++i) y[i] += 0.01f * std::sin(static_cast<float>(i * i));
  const CheckLine line = Judge(c, y)[0];
  EXPECT_EQ(line.verdict.status, Status::fail);
  EXPECT_EQ(line.verdict.blame, "");
}

// Nothing can be fitted to a row with a NaN in it, be its other values wrong as well.
TEST(Candidate, RowsWithNaNAreBlamedOnNothing) {
  const Case c = CommittedCase("L03.q_proj");
  std::vector<float> y = PlainMatvec(c, nullptr);
  for (size_t r = 0; r < c.w.rows; ++r) {
    y[r] += 1;
    y[c.w.rows + r] = NAN;
  }
  const CheckLine line = Judge(c, y)[0];
  EXPECT_EQ(line.verdict.status, Status::fail);
  EXPECT_EQ(line.verdict.blame, "");
}

TEST(Candidate, WhatCannotBeComparedIsSaid) {
  const Case c = CommittedCase("L03.q_proj");
  const std::vector<float> y = PlainMatvec(c, nullptr);
  const auto code = [&](const std::vector<SafetensorsEntry>& entries) {
    const TemporaryFile file(entries);
    try {
      JudgeCandidate(file.path(), {c}, std::nullopt);
    } catch (const Error& error) {
      return error.code();
    }
    return kPass;
  };
  EXPECT_EQ(code({Tensor("y", {c.tokens, c.w.rows}, y)}), kPass);
  EXPECT_EQ(code({Tensor("L03.q_proj.y", {c.tokens, c.w.rows}, y)}), kPass);
  EXPECT_EQ(code({Tensor("y", {c.w.rows, c.tokens}, y)}), kNotComparable);
  EXPECT_EQ(code({Tensor("z", {c.tokens, c.w.rows}, y)}), kNotComparable);
}

TEST(Export, FilesHoldTheCase) {
  const Case c = CommittedCase("L03.q_proj");
  const std::string folder = testing::TempDir() + "lab_export_" + std::to_string(getpid());
  ExportCase(c, folder);
  const std::string path = folder + "/L03.q_proj/";
  const std::string x = ReadText(path + "x.npy");
  ASSERT_EQ(x.size() % 64, (c.x.size() * sizeof(float)) % 64)
      << "data must start at a multiple of 64";
  EXPECT_TRUE(x.starts_with(std::string_view("\x93NUMPY\x01\x00", 8)));
  EXPECT_NE(x.find("'shape': (7, 1536,)"), std::string::npos);
  EXPECT_EQ(std::memcmp(x.data() + x.size() - c.x.size() * 4, c.x.data(), c.x.size() * 4), 0);
  const std::string w = ReadText(path + "w.bin");
  EXPECT_TRUE(std::equal(w.begin(), w.end(), reinterpret_cast<const char*>(c.w.data),
                         reinterpret_cast<const char*>(c.w.data) + c.w.bytes()));
  EXPECT_NE(ReadText(path + "README.md").find("- `y` [7, 64]"), std::string::npos);
  std::filesystem::remove_all(folder);
  Case bad = c;
  bad.name = "../x";
  EXPECT_THROW(ExportCase(bad, folder), Error);
}

TEST(Redraw, SameSeedSameCaseOtherSeedOther) {
  const Case c = CommittedCase("L03.q_proj");
  const Case a = Redrawn(c, 1), again = Redrawn(c, 1), b = Redrawn(c, 2);
  EXPECT_EQ(a.x, again.x);
  EXPECT_NE(a.x, b.x);
  EXPECT_NE(a.x, c.x);
  const auto blocks = [](const Case& each) {
    std::vector<std::string> list;
    for (size_t i = 0; i < each.w.bytes(); i += 144)
      list.emplace_back(reinterpret_cast<const char*>(each.w.data) + i, 144);
    return list;
  };
  auto before = blocks(c), after = blocks(a);
  EXPECT_NE(before, after);
  std::sort(before.begin(), before.end());
  std::sort(after.begin(), after.end());
  EXPECT_EQ(before, after) << "blocks are shuffled, none lost";
}

}  // namespace
}  // namespace lab
