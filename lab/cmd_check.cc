// lab check: every row on every case, judged against the oracle of its contract.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "lab/capture.h"
#include "lab/check_forward.h"
#include "lab/cli.h"
#include "lab/error.h"
#include "lab/judge.h"
#include "lab/names.h"
#include "lab/output.h"
#include "lab/parallel.h"
#include "lab/simd_target.h"
#include "lab/table.h"
#include "model/tokenizer.h"

namespace lab {
namespace {

struct Flags {
  std::string ops, backend, contract, cases, folder, target, model, format;
  size_t layer = 3;
  int repeat = 1, threads = DefaultThreads();
  bool worst = false;
  ForwardFlags forward;
};

// One line of the report.
struct Line {
  std::string case_name, row, target, kv;
  Contract contract;
  Verdict verdict;
  double method_error = 0;  // relative; 0 under f32
};

bool ParseFlags(int argc, char** argv, Flags& f) {
  CLI::App app(
      "Runs every kernel row on every case and judges it, element by element, against the float64 "
      "oracle of\n"
      "its contract. Without --model the committed cases are used. With --forward a whole pass is\n"
      "judged at every tap of every token.",
      "lab check");
  app.add_option("--op", f.ops, "only these ops or rows: globs such as matvec,silu")
      ->type_name("GLOB,...");
  app.add_option("--backend", f.backend, "only this backend: ref, hwy, cuda");
  app.add_option("--contract", f.contract, "only this contract: f32, q8, q16");
  app.add_option("--case", f.cases, "only cases whose name or op matches one of these globs")
      ->type_name("GLOB,...");
  app.add_option("--cases", f.folder, "folder of the cases (default: $LAB_CASES, then ./cases)")
      ->type_name("DIR");
  app.add_option(
      "--target", f.target,
      "only this SIMD target (default: every one that runs here; with --forward the best)");
  app.add_option(
         "--model", f.model,
         "take whole matrices of a layer of this model instead of the committed cases;\nwith "
         "--forward the model to run (default: $LAB_MODEL, the fetched file, tiny)")
      ->type_name("FILE|SHAPE");
  app.add_option("--layer", f.layer, "with --model: which layer (default 3)")->type_name("L");
  app.add_option("--repeat", f.repeat, "run each row so often and demand the same bits (default 1)")
      ->type_name("N");
  app.add_option("--threads", f.threads, "1 to 1024 (default: the cores of this machine)");
  app.add_flag("--worst", f.worst, "largest error first");
  AddFormat(app, f.format);
  AddForwardFlags(app, f.forward);
  app.footer("Example:\n  lab check --op gate_up --repeat 10\n  lab check --forward --generate 16");
  return ParseArgs(app, argc, argv);
}

std::vector<Case> LoadCases(const Flags& f) {
  std::vector<Case> cases;
  if (!f.model.empty()) {
    const Qwen2 model = OpenModel(f.model);
    if (f.layer >= model.config.layers)
      Fail("--layer {}: the model has layers 0 to {}", f.layer, model.config.layers - 1);
    const std::vector<int32_t> ids = Tokenizer(*model.source).Encode("What is 2+2?");
    cases = CaptureCases(model, f.layer, ids, 0, 0, f.threads);
  } else {
    const char* env = std::getenv("LAB_CASES");
    const std::string folder = !f.folder.empty() ? f.folder : env && *env ? env : "cases";
    for (const std::string& path : FindCaseFiles(folder)) {
      CaseFile file = ReadCaseFile(path);
      std::move(file.cases.begin(), file.cases.end(), std::back_inserter(cases));
    }
  }
  const CaseFilter filter(f.cases);
  std::erase_if(cases, [&](const Case& c) { return !filter.Has(c); });
  return cases;
}

std::vector<const Row*> SelectRows(const Flags& f) {
  std::optional<Backend> backend;
  std::optional<Contract> contract;
  if (!f.backend.empty()) backend = ParseBackend(f.backend, "--backend");
  if (!f.contract.empty()) contract = ParseContract(f.contract, "--contract");
  const std::vector<std::string> globs =
      f.ops.empty() ? std::vector<std::string>{} : CLI::detail::split(f.ops, ',');
  std::vector<const Row*> rows;
  for (const Row& row : Rows()) {
    const auto matches = [&](const std::string& g) {
      return GlobMatch(g, NameOf(row.op)) || GlobMatch(g, row.function);
    };
    if (row.backend == Backend::oracle) continue;  // it is what the others are judged against
    if (backend && row.backend != *backend) continue;
    if (contract && row.contract != *contract) continue;
    if (!globs.empty() && std::none_of(globs.begin(), globs.end(), matches)) continue;
    rows.push_back(&row);
  }
  return rows;
}

// Checks the rows on one case. Oracles are run once for each contract and KV type.
class CaseChecker {
 public:
  CaseChecker(const Flags& flags, const Case& c, std::vector<Line>& lines)
      : f_(flags), c_(c), lines_(lines) {}

  void Check(const Row& row) {
    const bool attention = row.op == Op::gqa_attention;
    CheckKv(row, false, attention ? "f32" : "-");
    if (attention) CheckKv(row, true, "f16");
  }

 private:
  void CheckKv(const Row& row, bool half_kv, const char* kv) {
    const std::vector<Expected>& expected = ExpectedFor(row.contract, half_kv);
    const bool exact_contract = row.contract == Contract::f32 && !half_kv;
    const double method = exact_contract || row.op == Op::quantize
                              ? 0
                              : MethodError(expected, ExpectedFor(Contract::f32, false));
    const auto add = [&](const std::string& target, Verdict v) {
      lines_.push_back(
          {c_.name, std::string(row.function), target, kv, row.contract, std::move(v), method});
    };
    if (row.backend != Backend::hwy) {
      add("-", JudgeRow(c_, row, expected, half_kv, f_.threads, f_.repeat, 1));
      return;
    }
    for (const SimdTarget& target : SimdTargets()) {
      if (!f_.target.empty() && f_.target != target.name) continue;
      if (!target.runs_here) {
        Verdict v;
        v.status = Status::not_run;
        v.why = "this processor lacks it";
        add(target.name, v);
        continue;
      }
      UseSimdTarget(target.name);
      add(target.name, JudgeRow(c_, row, expected, half_kv, f_.threads, f_.repeat, target.lanes));
    }
    UseSimdTarget("");
  }

  const std::vector<Expected>& ExpectedFor(Contract contract, bool half_kv) {
    std::optional<std::vector<Expected>>& slot = expected_[static_cast<size_t>(contract)][half_kv];
    if (!slot) slot = ExpectedOf(c_, contract, half_kv);
    return *slot;
  }

  const Flags& f_;
  const Case& c_;
  std::vector<Line>& lines_;
  std::optional<std::vector<Expected>> expected_[3][2];
};

std::string WorstElement(const Verdict& v) {
  return v.compared == 0 ? "" : fmt::format("{}[t{}, {}]", v.output, v.token, v.channel);
}

std::string ToText(const std::vector<Line>& lines) {
  Table table({"verdict", "row", "target", "kv", "case", "err/tol", "worst", "got", "oracle",
               "method", "why"});
  for (const Line& line : lines) {
    const Verdict& v = line.verdict;
    const bool ran = v.compared > 0;
    table.Add({std::string(NameOf(v.status)), line.row, line.target, line.kv, line.case_name,
               ran ? fmt::format("{:.3f}", v.worst) : "", WorstElement(v),
               ran ? fmt::format("{:.7g}", v.got) : "",
               ran ? fmt::format("{:.7g}", v.expected) : "",
               line.method_error > 0 ? fmt::format("{:.1e}", line.method_error) : "", v.why});
  }
  return table.ToText();
}

std::string ToJsonl(const std::vector<Line>& lines) {
  using Json = nlohmann::ordered_json;
  const auto number = [](double x) {
    return std::isfinite(x) ? Json(x) : Json(fmt::format("{}", x));
  };
  std::string out;
  for (const Line& line : lines) {
    const Verdict& v = line.verdict;
    const Json record = {{"kind", "verdict"},
                         {"verdict", v.status == Status::fail ? "fail" : NameOf(v.status)},
                         {"row", line.row},
                         {"contract", NameOf(line.contract)},
                         {"target", line.target},
                         {"kv", line.kv},
                         {"case", line.case_name},
                         {"compared", v.compared},
                         {"err_over_tol", number(v.worst)},
                         {"output", v.output},
                         {"token", v.token},
                         {"channel", v.channel},
                         {"got", number(v.got)},
                         {"expected", number(v.expected)},
                         {"method_error", number(line.method_error)},
                         {"why", v.why}};
    out += record.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  return out;
}

// Passed, failed, the rest; how many elements; how close the closest pass came.
int Summary(const std::vector<Line>& lines, Format format) {
  size_t counts[4] = {};
  uint64_t compared = 0;
  double worst = 0;
  for (const Line& line : lines) {
    ++counts[static_cast<size_t>(line.verdict.status)];
    compared += line.verdict.compared;
    if (line.verdict.status == Status::pass) worst = std::max(worst, line.verdict.worst);
  }
  if (format == Format::text) {
    PrintOut(
        fmt::format("\n{} passed, {} failed, {} not built, {} not run; {} elements compared, worst "
                    "pass {:.3f} of its tolerance\n",
                    counts[0], counts[1], counts[2], counts[3], compared, worst));
  } else {
    PrintOut(nlohmann::ordered_json{{"kind", "summary"},
                                    {"passed", counts[0]},
                                    {"failed", counts[1]},
                                    {"not_built", counts[2]},
                                    {"not_run", counts[3]},
                                    {"compared", compared},
                                    {"worst_pass", worst}}
                 .dump() +
             "\n");
  }
  if (counts[1] > 0) return kNumericFailure;
  if (counts[0] > 0) return kPass;
  fmt::print(stderr, "lab: nothing was compared\n");
  return counts[2] + counts[3] > 0 ? kCannotRun : kNotComparable;
}

}  // namespace

int CmdCheck(int argc, char** argv) {
  Flags f;
  if (!ParseFlags(argc, argv, f)) return kPass;
  CheckThreads(f.threads);
  if (f.repeat < 1) Fail("--repeat: {} is not at least 1", f.repeat);
  const Format format = ParseFormat(f.format);
  UseSimdTarget(f.target);
  if (f.forward.on)
    return CheckForward(f.forward, {f.model, f.backend, f.contract, f.threads, format, f.worst});
  const std::vector<const Row*> rows = SelectRows(f);
  const std::vector<Case> cases = LoadCases(f);
  if (rows.empty() || cases.empty())
    throw Error(kNotComparable, rows.empty()
                                    ? "no kernel row matches --op, --backend and --contract"
                                    : "no case matches --case");

  std::vector<Line> lines;
  for (const Case& c : cases) {
    CaseChecker checker(f, c, lines);
    for (const Row* row : rows)
      if (row->op == c.op) checker.Check(*row);
  }
  if (f.worst) {
    std::stable_sort(lines.begin(), lines.end(), [](const Line& a, const Line& b) {
      return a.verdict.worst > b.verdict.worst;
    });
  }
  PrintOut(format == Format::text ? ToText(lines) : ToJsonl(lines));
  return Summary(lines, format);
}

}  // namespace lab
