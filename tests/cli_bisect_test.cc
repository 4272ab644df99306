// lab bisect as a user runs it.
#include "tests/cli_run.h"

namespace lab::cli_test {
namespace {

const Strings kBisect = {"bisect", "--model", "tiny", "--tokens", "87,104,97,300,5"};
const Strings kWrong = kBisect + Strings{"--use", "down_proj@6=mutant:rows_rotated"};

TEST(CliBisect, VerdictComesFirst) {
  const Result right = RunLab(kBisect);
  EXPECT_EQ(right.code, 0) << right.err;
  EXPECT_TRUE(right.out.starts_with(
      "within contract q16 (KV f32), no wrong step: all 480 are within their tolerance"));
  const Result wrong = RunLab(kWrong);
  EXPECT_EQ(wrong.code, 1) << wrong.err;
  EXPECT_TRUE(
      wrong.out.starts_with("WRONG from L06.down_proj on: op down_proj, row "
                            "MatvecRows8Q16Hwy+rows_rotated: error "))
      << wrong.out;
  ExpectHas(wrong.out, {"1 of 480 steps are wrong", "next: ", "--xray"});
}

TEST(CliBisect, JsonlHasEveryStep) {
  const Result r = RunLab(kWrong + Strings{"--format", "jsonl"});
  EXPECT_EQ(r.code, 1);
  const auto records = Records(r.out);
  const auto steps = OfKind(records, "step");
  EXPECT_EQ(steps.size(), 480u);
  EXPECT_EQ(KeysOf(steps[0]),
            (Strings{"kind",     "step",        "layer",         "op",          "row",
                     "contract", "verdict",     "err_over_tol",  "local_error", "tolerance",
                     "output",   "token",       "channel",       "got",         "expected",
                     "compared", "accumulated", "amplification", "why",         "blame"}));
  for (const Json& s : steps)
    EXPECT_EQ(s["verdict"], s["step"] == "L06.down_proj" ? "fail" : "pass") << s;
  const Json& summary = records.back();
  EXPECT_EQ(summary["first"], "L06.down_proj");
  EXPECT_EQ(summary["op"], "down_proj");
  EXPECT_EQ(summary["layer"], 6);
  EXPECT_EQ(summary["wrong"], 1);
}

// The command that is printed judges the capsule and fails; without the mutant the same row passes.
TEST(CliBisect, CapsuleFailsUnderCheck) {
  const TempDir dir;
  const Result r = RunLab(kWrong + Strings{"-o", dir / "spoilt"});
  EXPECT_EQ(r.code, 1);
  EXPECT_EQ(dir.Names(), (Strings{"spoilt.safetensors", "spoilt.toml"}));
  EXPECT_LT(fs::file_size(dir / "spoilt.safetensors"), 1000000u);
  const size_t at = r.out.find("lab check ");
  ASSERT_NE(at, std::string::npos) << r.out;
  std::istringstream line(r.out.substr(at, r.out.find('\n', at) - at));
  Strings command((std::istream_iterator<std::string>(line)), {});
  command.erase(command.begin());
  EXPECT_EQ(RunLab(command).code, 1);
  command.resize(command.size() - 2);  // --use
  EXPECT_EQ(RunLab(command).code, 0);
}

TEST(CliBisect, NonFiniteIsItsOwnExitCode) {
  const Result r = RunLab(kBisect + Strings{"--use", "silu@2=mutant:nan_element"});
  EXPECT_EQ(r.code, 4);
  ExpectHas(r.out,
            {"WRONG from L02.silu on", "first value that is not finite: L02.ffn_silu token"});
}

TEST(CliBisect, BlameRanksAndShards) {
  const Strings blame =
      kBisect +
      Strings{
          "--blame", "--contract", "q8", "--layers", "4", "--use", "down_proj@4=mutant:transposed"};
  const Result text = RunLab(blame);
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_TRUE(text.out.starts_with("L04.down_proj moves the logits most")) << text.out;
  ExpectHas(text.err, {"6 steps, each exchanged in both passes: about"});
  const auto records = Records(RunLab(blame + Strings{"--format", "jsonl", "--shard", "2/4"}).out);
  EXPECT_EQ(OfKind(records, "blame").size(), 2u);
  EXPECT_EQ(KeysOf(records[0]),
            (Strings{"kind", "step", "layer", "op", "row", "kl_alone", "kl_repaired"}));
}

TEST(CliBisect, XrayNamesTheField) {
  const Strings xray = {"bisect", "--model", "tiny", "--xray", "MatvecHwy", "--ops", "*q_proj"};
  const Result right = RunLab(xray);
  EXPECT_EQ(right.code, 0) << right.err;
  ExpectHas(right.out, {"every weight of 1 matrices is read as it is"});
  const Result wrong =
      RunLab(xray + Strings{"--use", "matvec=mutant:min_dropped", "--layers", "5"});
  EXPECT_EQ(wrong.code, 1);
  EXPECT_TRUE(
      wrong.out.starts_with("MatvecHwy+min_dropped reads L05.q_proj wrongly: dmin left out"))
      << wrong.out;
}

TEST(CliBisect, BadUsageIsSaid) {
  const Case kCases[] = {
      {kBisect + Strings{"--backend", "oracle"}, 2, {"--backend oracle"}},
      {kBisect + Strings{"--layers", "28"}, 2, {"--layers", "'28'"}},
      {kBisect + Strings{"--ops", "nosuch"}, 3, {"no step of this pass matches"}},
      {kBisect + Strings{"--use", "silu=mutant:nosuch"}, 2, {"nosuch"}},
      {kBisect + Strings{"--shard", "1/2"}, 2, {"--blame"}},
      {kBisect + Strings{"--blame", "--shard", "3/2"}, 2, {"--shard 3/2"}},
      {kBisect + Strings{"--blame", "--contract", "f32"}, 3, {"clean pass"}},
      {kBisect + Strings{"--xray", "SiluHwy"}, 3, {"no matrix"}},
      {kBisect + Strings{"-o", "/nonexistent/x"}, 2, {"/nonexistent/x.toml"}},
      {kBisect + Strings{"--kv", "f8"}, 2, {"--kv"}},
  };
  ExpectFails(kCases);
}

}  // namespace
}  // namespace lab::cli_test
