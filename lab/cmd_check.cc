// lab check: every row on every case, judged against the oracle of its contract.
#include <algorithm>
#include <optional>

#include "lab/candidate.h"
#include "lab/capture.h"
#include "lab/check_forward.h"
#include "lab/check_report.h"
#include "lab/cli.h"
#include "lab/device.h"
#include "lab/error.h"
#include "lab/mutant_matrix.h"
#include "lab/names.h"
#include "lab/parallel.h"
#include "lab/redraw.h"
#include "lab/select.h"
#include "lab/simd_target.h"
#include "model/tokenizer.h"

namespace lab {
namespace {

struct Flags : RowFlags {
  std::string backend, folder, target, model, require, shard, format, mutant, candidate;
  std::vector<std::string> use, merge;
  size_t layer = 3;
  int repeat = 1, fresh = 0, threads = DefaultThreads();
  bool worst = false, mutants = false;
  ForwardFlags forward;
  int argc = 0;  // as they came, for MadeBy
  char** argv = nullptr;
};

bool ParseFlags(int argc, char** argv, Flags& f) {
  CLI::App app(
      "Runs every kernel row on every case and judges it, element by element, against the float64 "
      "oracle of\n"
      "its contract. Without --model the committed cases are used. With --forward a whole pass is\n"
      "judged at every tap of every token.",
      "lab check");
  AddRowFlags(app, f);
  app.add_option("--backend", f.backend,
                 "only this backend: ref, hwy, cuda, cuda-host (the CUDA kernels on the\nCPU: "
                 "right or wrong as "
                 "on a GPU, but slow; default: all others)")
      ->type_name("ref|hwy|cuda|cuda-host");
  app.add_option("--cases", f.folder,
                 "folder of the cases (default: $LAB_CASES, ./cases, the installed ones)")
      ->type_name("DIR");
  app.add_option(
      "--target", f.target,
      "only this SIMD target (default: every one that runs here; with --forward the best)");
  app.add_option(
         "--model", f.model,
         "take whole matrices of a layer of this model instead of the committed cases;\nwith "
         "--forward the model to run (default: $LAB_MODEL, the fetched file, tiny)")
      ->type_name("FILE|SHAPE");
  app.add_option("--layer", f.layer, "with --model: which layer (default 3)")
      ->type_name("L")
      ->check(NotNegative);
  app.add_option("--repeat", f.repeat, "run each row so often and demand the same bits (default 1)")
      ->type_name("N");
  app.add_option("--fresh", f.fresh,
                 "redraw the inputs of every case N times instead of taking them as captured")
      ->type_name("N");
  auto* mutants = app.add_flag("--mutants", f.mutants,
                               "judge the judge: wrap every row in every mutant; each must fail");
  app.add_option("--mutant", f.mutant, "with --mutants: only these")
      ->type_name("GLOB,...")
      ->needs(mutants);
  app.add_option("--use", f.use,
                 "run an op under a mutant, to see it fail: silu=mutant:gelu; with --forward\nalso "
                 "other rows, and in some layers alone: matvec@3-5=ref")
      ->type_name("OP[@LAYERS]=ROW|mutant:NAME")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->excludes(mutants);
  auto* candidate =
      app.add_option(
             "--candidate", f.candidate,
             "judge an output computed elsewhere ('lab capture --export' writes the inputs)")
          ->type_name("OUT.safetensors")
          ->excludes(mutants);
  app.add_option("--require", f.require, "exit 125 unless rows of this backend ran: ref, hwy, cuda")
      ->type_name("ref|hwy|cuda");
  app.add_option("--shard", f.shard,
                 "only the I-th of N parts of the cases (of the mutants, with --mutants), I from 1")
      ->type_name("I/N")
      ->excludes(candidate);
  app.add_option("--merge", f.merge,
                 "report on JSON lines of earlier runs as on one; parts of a --shard must be "
                 "complete")
      ->type_name("FILE...");
  AddThreads(app, f.threads);
  app.add_flag("--worst", f.worst, "largest error first");
  AddTableFormat(app, f.format);
  AddForwardFlags(app, f.forward);
  app.footer(
      "Example:\n  lab check --op gate_up --repeat 10\n  lab check --forward --generate 16\n"
      "  lab check --shard 2/8 --format jsonl > 2.jsonl    # and 1, 3 ... on other machines; then\n"
      "  lab check --merge [1-8].jsonl");
  return ParseArgs(app, argc, argv);
}

// "What is 2+2?"; in a file without a vocabulary its ids in qwen2's, as far as they exist.
std::vector<int32_t> CheckIds(const Qwen2& model) {
  if (model.source->Strings("tokenizer.ggml.tokens"))
    return Tokenizer(*model.source).Encode("What is 2+2?");
  std::vector<int32_t> ids = {3838, 374, 220, 17, 10, 17, 30};
  for (int32_t& id : ids) id %= static_cast<int32_t>(model.config.vocab);
  return ids;
}

std::vector<Case> LoadCases(const Flags& f) {
  std::vector<Case> cases;
  if (!f.model.empty()) {
    const Qwen2 model = OpenModel(f.model);
    if (f.layer >= model.config.layers)
      Fail("--layer {}: the model has layers 0 to {}", f.layer, model.config.layers - 1);
    cases = CaptureCases(model, f.layer, CheckIds(model), 0, 0, f.threads);
  } else {
    cases = ReadCases(CasesFolder(f.folder));
  }
  ChooseCases(cases, f.cases, "--case");
  return cases;
}

std::vector<Case> Redraw(const std::vector<Case>& cases, int fresh) {
  if (fresh == 0) return cases;
  std::vector<Case> redrawn;
  for (int seed = 1; seed <= fresh; ++seed)
    for (const Case& c : cases) redrawn.push_back(Redrawn(c, static_cast<uint64_t>(seed)));
  return redrawn;
}

// Leaves the part that --shard names. `name` of an item.
template <class Item, class Name>
MadeBy Cut(std::vector<Item>& items, const Flags& f, const char* what, Name name) {
  const Shard shard = ParseShard(f.shard);
  shard.Check(items.size(), what);
  std::vector<std::string> names;
  for (const Item& item : items) names.emplace_back(name(item));
  size_t index = 0;
  std::erase_if(items, [&](const Item&) { return !shard.Has(index++); });
  return DescribeRun(f.argc, f.argv, f.model, shard, names);
}

// Checks the rows on one case. Oracles are run once for each contract and KV type.
class CaseChecker {
 public:
  CaseChecker(const Flags& flags, const std::vector<UseRule>& rules, const Case& c,
              std::vector<CheckLine>& lines)
      : f_(flags), rules_(rules), c_(c), lines_(lines), oracles_(c) {}

  void Check(const Row& row) {
    const bool attention = row.op == Op::gqa_attention;
    CheckKv(row, false, attention ? "f32" : "-");
    if (attention) CheckKv(row, true, "f16");
  }

 private:
  void CheckKv(const Row& row, bool half_kv, const char* kv) {
    const std::vector<Expected>& expected = oracles_.Of(row.contract, half_kv);
    const bool exact_contract = row.contract == Contract::f32 && !half_kv;
    const double method = exact_contract || row.op == Op::quantize
                              ? 0
                              : MethodError(expected, oracles_.Of(Contract::f32, false));
    const RowUse use = UseOf(row, rules_);
    const std::string name = NameOf(use);
    const auto add = [&](const std::string& target, Verdict v) {
      lines_.push_back(
          {c_.name, name, target, kv, std::string(NameOf(row.contract)), std::move(v), method});
    };
    if (row.backend != Backend::hwy) {
      add("-", JudgeRow(c_, use, expected, half_kv, f_.threads, f_.repeat, LanesOf(row)));
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
      add(target.name, JudgeRow(c_, use, expected, half_kv, f_.threads, f_.repeat, target.lanes));
    }
    UseSimdTarget("");
  }

  const Flags& f_;
  const std::vector<UseRule>& rules_;
  const Case& c_;
  std::vector<CheckLine>& lines_;
  Oracles oracles_;
};

int CheckMutants(const Flags& f, const std::vector<const Row*>& rows,
                 const std::vector<Case>& cases) {
  const GlobList globs(f.mutant);
  std::vector<const Mutant*> mutants;  // all cases for each: one of them must show it
  for (const Mutant& m : Mutants())
    if (globs.Match(m.name) &&
        std::any_of(rows.begin(), rows.end(), [&](const Row* row) { return m.Wraps(row->op); }))
      mutants.push_back(&m);
  if (mutants.empty()) {
    std::vector<std::string_view> names;
    for (const Mutant& m : Mutants()) names.push_back(m.name);
    throw Error(kNotComparable, fmt::format("--mutant {}: no mutant of these ops has that name{}",
                                            Printable(f.mutant), DidYouMean(f.mutant, names)));
  }
  const MadeBy made_by = Cut(mutants, f, "mutants", [](const Mutant* m) { return m->name; });
  return ReportMutants(SumMutants(RunMutants(mutants, rows, cases, f.threads)), {made_by},
                       ParseTableFormat(f.format));
}

// Throws where no row of the backend can run here.
void Require(const std::vector<const Row*>& rows, Backend backend) {
  std::string why = "no row of that backend is selected";
  for (const Row* row : rows) {
    if (row->backend != backend) continue;
    why = WhyNotHere(*row);
    if (why.empty()) return;
  }
  throw Error(kCannotRun, fmt::format("--require {}: {}", NameOf(backend), why));
}

}  // namespace

int CmdCheck(int argc, char** argv) {
  Flags f;
  f.argc = argc, f.argv = argv;
  if (!ParseFlags(argc, argv, f)) return kPass;
  CheckThreads(f.threads);
  if (f.repeat < 1) Fail("--repeat: {} is not at least 1", f.repeat);
  if (f.fresh < 0) Fail("--fresh: {} is not at least 0", f.fresh);
  const Format format = ParseTableFormat(f.format);
  if (!f.merge.empty()) return ReportMerged(f.merge, format, f.worst);
  UseSimdTarget(f.target);
  if (f.forward.on)
    return CheckForward(
        f.forward, {f.model, f.backend, f.contract, f.threads, format, f.worst, f.use, argc, argv});
  const std::vector<UseRule> rules = ParseMutantUse(f.use);
  const std::vector<const Row*> rows = SelectRows(f.ops, f.backend, f.contract);
  if (!f.require.empty()) Require(rows, ParseBackend(f.require, "--require"));
  std::vector<Case> cases = LoadCases(f);
  if (f.mutants) return CheckMutants(f, rows, Redraw(cases, f.fresh));
  if (!f.candidate.empty()) {
    std::optional<Contract> contract;
    if (!f.contract.empty()) contract = ParseContract(f.contract, "--contract");
    return ReportCandidate(JudgeCandidate(f.candidate, Redraw(cases, f.fresh), contract), format);
  }

  // Parts are of what there is to do, so that none is idle.
  std::erase_if(cases, [&](const Case& c) {
    return std::none_of(rows.begin(), rows.end(), [&](const Row* row) { return row->op == c.op; });
  });
  const MadeBy made_by = Cut(cases, f, "cases", [](const Case& c) { return c.name; });
  std::vector<CheckLine> lines;
  for (const Case& c : Redraw(cases, f.fresh)) {
    CaseChecker checker(f, rules, c, lines);
    for (const Row* row : rows)
      if (row->op == c.op) checker.Check(*row);
  }
  return ReportCheck(std::move(lines), {made_by}, format, f.worst);
}

}  // namespace lab
