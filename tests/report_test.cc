// What is on the page of lab report, and what can not get onto it.
#include "lab/report.h"

#include <fmt/format.h>

#include <set>

#include "lab/error.h"
#include "tests/test_util.h"

namespace lab {
namespace {

const std::string kHostile = "<script>alert(1)</script>\"'&|";

size_t Count(std::string_view text, std::string_view part) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(part, at)) != text.npos; at += part.size()) ++count;
  return count;
}

std::string Summary(Json summary) {
  const std::string whole = summary.dump();  // each is a run of its own
  summary["kind"] = "summary";
  summary["made_by"] = ToJson({MadeBy{"lab x " + kHostile, "b", "a CPU", kHostile, 1, 1, whole}});
  return ToLine(summary);
}

std::string TapLine(const char* tap, const Json& layer, size_t token, double std, double absmax) {
  return ToLine({{"kind", "tap"},
                 {"tap", tap},
                 {"layer", layer},
                 {"token", token},
                 {"n", 100},
                 {"mean", 0},
                 {"std", std},
                 {"absmax", absmax},
                 {"argmax", 41},
                 {"l2", 10 * std}});
}

std::string Trace() {
  return ToLine({{"kind", "header"},
                 {"model", kHostile},
                 {"layers", 2},
                 {"ids", {7, 8}},
                 {"std", "population"},
                 {"contract", "f32"},
                 {"command_line", {"lab", kHostile}}}) +
         TapLine("ffn_up", 0, 0, 31.25, 300) + TapLine("ffn_up", 0, 1, 0.5, 2) +
         TapLine("ffn_up", 1, 0, 0.25, 1) + TapLine("lm_head", Json(), 1, 3.5, 9) +
         ToLine({{"kind", "summary"}});
}

std::string Steps() {
  Json step = {{"kind", "step"},
               {"step", "L03.silu"},
               {"layer", 3},
               {"op", "silu"},
               {"row", "SiluHwy" + kHostile},
               {"verdict", "fail"},
               {"err_over_tol", 353.5},
               {"local_error", 1e-3},
               {"tolerance", 2.8e-6},
               {"output", "y"},
               {"token", 1},
               {"channel", 17},
               {"got", 2.5},
               {"expected", 1.25},
               {"accumulated", 0.15},
               {"amplification", Json()},
               {"blame", kHostile}};
  std::string text = ToLine(step);
  step.update({{"step", "L04.silu"}, {"layer", 4}, {"verdict", "pass"}, {"err_over_tol", 0.5}});
  return text + ToLine(step) +
         Summary({{"wrong", 1}, {"first", "L03.silu"}, {"op", "silu"}, {"not_finite", Json()}});
}

const std::string kBlame =
    ToLine({{"kind", "blame"}, {"step", "L01.silu"}, {"kl_alone", 0.25}, {"kl_repaired", 0.5}}) +
    ToLine({{"kind", "blame"}, {"step", "L02.silu"}, {"kl_alone", 0.75}, {"kl_repaired", 0.5}}) +
    Summary({{"kl_candidate", 1.0}});
const std::string kBench = R"({"context": {"cpu": "<b>"}, "benchmarks": [
    {"name": "silu/<i>/x_median", "run_name": "silu/<i>/x", "run_type": "aggregate",
     "aggregate_name": "median", "real_time": 2500.0, "time_unit": "ns", "GB/s": 12.5, "%roof": 62.5},
    {"name": "bad", "error_occurred": true, "error_message": "is <wrong>"}]})";
const std::string kPasses =
    "{\"run\":\"decode\",\"tokens\":1,\"depth\":64,\"tok/s\":12.5,\"ms\":80,\"%roof\":71}\n";

class ReportTest : public testing::Test {
 protected:
  Report Make(const std::vector<std::string>& texts) {
    std::vector<std::string> paths;
    for (const std::string& text : texts)
      paths.push_back(WriteBytes(dir_ / fmt::format("{}<i>", files_++), text));
    return MakeReport(ReadReportInputs(paths), {});
  }
  std::string Page(const std::vector<std::string>& texts) { return ReportToHtml(Make(texts)); }
  std::string Refusal(const std::string& text) {
    try {
      Make({text});
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), kUsage);
      return error.what();
    }
  }
  TempDir dir_;
  int files_ = 0;
};

void ExpectHas(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts)
    EXPECT_NE(text.find(part), std::string::npos) << "lacks: " << part;
}

TEST_F(ReportTest, EveryInputIsShown) {
  const std::string page = Page({Trace(), Steps(), kBlame, kBench, kPasses});
  ExpectHas(page, {"Standard deviation of every tap",
                   "L00.ffn_up all tokens pooled\nstd ",
                   "lm_head all tokens pooled\nstd 3.5\nlargest magnitude 9\nchannel 41",
                   "Massive activations",
                   "300.00",  // trace
                   "bisect: wrong from L03.silu on",
                   "353",
                   "L03.silu y[t1, 17]",  // bisect
                   "Local error",
                   "Accumulated error",
                   "blame: L02.silu moves the logits most",
                   "width:100.0%",
                   "width:33.3%",  // blame
                   "silu/&lt;i&gt;/x",
                   "2.5 us, 12.5 GB/s, 62 %",  // bench
                   "bench: bad",
                   "is &lt;wrong&gt;",
                   "12.5 tok/s",
                   "71 % of the roof",
                   "a CPU"});
  EXPECT_LT(page.find("class=\"bad\""), page.find("blame: L02"));  // worst first
}

TEST_F(ReportTest, NothingFromAFileIsMarkup) {
  const std::string page = Page({Trace(), Steps(), kBlame, kBench, kPasses});
  EXPECT_EQ(page.find("<script>alert"), std::string::npos);
  ExpectHas(page, {"&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;|"});
  EXPECT_EQ(Count(page, "<i>"), 0u);
  EXPECT_EQ(Count(page, "<script"), 1 + Count(page, "<script type=\"application/json\">"));
  EXPECT_EQ(Count(page, "<script"), Count(page, "</script>"));
  const std::string md = ReportToMarkdown(Make({Trace(), Steps(), kBlame, kBench, kPasses}));
  EXPECT_EQ(md.find("<script"), md.find("\\<script") + 1);
  ExpectHas(md, {"- FAIL: **bisect: wrong from L03.silu on**", "\\<script\\>alert(1)"});
}

// The first tag of a page that does not end the element opened last, and the elements left open.
std::string Misnested(const std::string& page) {
  const std::set<std::string> no_end = {"meta", "input"};
  std::vector<std::string> open;
  for (size_t at = 0; (at = page.find('<', at)) != std::string::npos; ++at) {
    const bool ends = page[at + 1] == '/';
    const size_t name_at = at + 1 + ends;
    const std::string name = page.substr(
        name_at, page.find_first_not_of("abcdefghijklmnopqrstuvwxyz123456", name_at) - name_at);
    if (name.empty() || no_end.count(name)) continue;  // <!doctype
    if (!ends) {
      open.push_back(name);
      if (name == "script" || name == "style") at = page.find("</" + name, at) - 1;
    } else if (open.empty() || open.back() != name) {
      return page.substr(0, at).substr(at < 200 ? 0 : at - 200) + "</" + name + ">";
    } else {
      open.pop_back();
    }
  }
  return fmt::format("{}", fmt::join(open, " "));
}

TEST_F(ReportTest, EveryElementEnds) {
  EXPECT_EQ(Misnested(Page({Trace(), Steps(), kBlame, kBench, kPasses})), "");
  EXPECT_EQ(Misnested(Page({kBench})), "");
}

TEST_F(ReportTest, NothingComesFromElsewhere) {
  const std::string page = Page({Trace(), Steps(), kBlame, kBench, kPasses});
  for (const char* way : {"http:", "https:", "src=", "href=", "url(", "@import", "fetch("})
    EXPECT_EQ(page.find(way), std::string::npos) << way;
}

TEST_F(ReportTest, MassiveAndWrongCellsAreMarked) {
  const HeatMap map = Make({Trace()}).maps.at(0);
  ASSERT_EQ(map.columns, std::vector<std::string>{"ffn_up"});
  ASSERT_EQ(map.rows, (std::vector<std::string>{"L00", "L01"}));
  ASSERT_EQ(map.frames.size(), 3u);  // pooled, two tokens
  EXPECT_TRUE(map.frames[0].cells[0]->marked);
  EXPECT_TRUE(map.frames[1].cells[0]->marked);
  EXPECT_FALSE(map.frames[2].cells[0]->marked);
  EXPECT_FALSE(map.frames[2].cells[1]);  // L01.ffn_up of token 1 was not recorded
  EXPECT_EQ(map.frames[2].cells[2]->figures[0], 3.5);
  const Report bisect = Make({Steps()});
  EXPECT_TRUE(bisect.maps.at(0).frames[0].cells[0]->marked);
  EXPECT_FALSE(bisect.maps.at(0).frames[0].cells[1]->marked);
}

// Statistics of a run as large as the 1.5B model's, 28 layers.
RunRecord LargeRun(size_t tokens) {
  RunRecord run;
  run.header.model = "m";
  run.header.contract = "f32", run.header.kv = "f32";
  run.header.std_kind = StdKind::population;
  run.header.ids.emplace();
  for (size_t t = 0; t < tokens; ++t) run.header.ids->push_back(static_cast<int32_t>(100000 + t));
  for (size_t tap = 0; tap < Taps().size(); ++tap)
    for (int layer = Taps()[tap].per_layer ? 0 : kNoLayer; layer < (Taps()[tap].per_layer ? 28 : 0);
         ++layer)
      for (size_t t = 0; t < tokens; ++t) {
        Stats s;
        s.n = 8960;
        s.std = 0.123456789 * static_cast<double>(t + 1), s.mean = 1e-3, s.absmax = 123.456789;
        s.argmax = 8000 + t;
        run.tokens[{static_cast<Tap>(tap), layer, t}].figures = FiguresOf(s);
      }
  return run;
}

TEST(ReportSize, TwoLongRunsStaySmall) {
  const RunRecord run = LargeRun(50);
  const DiffResult diff = {&run, &run, CompareRuns(run, run, {}, nullptr), {}, {}, {}, false};
  ReportInputs inputs;
  inputs.runs = {run, run};
  const Report report = MakeReport(inputs, diff);
  ASSERT_EQ(report.maps.size(), 3u);
  EXPECT_EQ(report.maps[1].frames.size(), 49u);
  EXPECT_EQ(report.maps[1].frames.back().name, "token 49 (id 100049)");
  ExpectHas(report.maps[1].note, {"first and the last 24 of 50 tokens"});
  const std::string page = ReportToHtml(report);
  EXPECT_LT(page.size(), 3'000'000u);
  EXPECT_EQ(Count(page, "class=\"map "), 3u);
  ExpectHas(page, {"A and B: identical"});
}

TEST_F(ReportTest, UnknownInputIsSaidInOneLine) {
  for (const std::string& text :
       {std::string("hello\n"), std::string("{\"a\": 1}"), std::string("\0\1\2", 3)}) {
    const std::string refusal = Refusal(text);
    EXPECT_NE(refusal.find("nothing that lab report knows"), std::string::npos) << refusal;
    EXPECT_EQ(refusal.find('\n'), std::string::npos);
  }
  // The JSON lines of lab diff begin with a header, as traces do.
  const std::string diff = ToLine({{"kind", "header"}, {"field", "model"}, {"a", "x"}, {"b", "y"}});
  EXPECT_NE(Refusal(diff + Summary({})).find("holds 'header' records"), std::string::npos);
  Json step = Json::parse(Steps().substr(0, Steps().find('\n')));
  step.erase("verdict");
  EXPECT_NE(Refusal(ToLine(step) + Summary({{"wrong", 0}, {"not_finite", Json()}}))
                .find("a 'step' record that lab did not print"),
            std::string::npos);
}

}  // namespace
}  // namespace lab
