// lab diff: two traces or dumps, of lab or of another program.
#include <algorithm>
#include <set>

#include "lab/cli.h"
#include "lab/diff_report.h"
#include "lab/error.h"
#include "lab/output.h"
#include "lab/parallel.h"
#include "lab/run_record.h"
#include "model/file_bytes.h"

namespace lab {
namespace {

// Oracles keep 13 MB a token for the 1.5B model; later tokens are judged by the table.
constexpr size_t kOracleTokens = 64;

struct Flags {
  std::string a, b, model, format;
  Transforms how;
  bool explain = false;
  int threads = DefaultThreads();
};

bool ParseFlags(int argc, char** argv, Flags& f) {
  CLI::App app(
      "Compares two runs tap by tap: traces (--trace) or dumps (--dump) of lab, or of another "
      "program.\nFirst whether they may be compared at all (exit 3 if not), then whether what "
      "differs means anything.",
      "lab diff");
  app.add_option("a", f.a, "one run")->type_name("A")->required();
  app.add_option("b", f.b, "the other")->type_name("B")->required();
  app.add_flag("--explain", f.explain,
               "look for what makes the difference vanish: another set of tokens, before or after "
               "the\nbias or RoPE, another std ... tried on the values of the run that has them, "
               "or of --model");
  app.add_option("--model", f.model,
                 "the model of both runs: the tolerance is then computed, and each run is also "
                 "compared\nwith the oracle of its contract")
      ->type_name("FILE|SHAPE");
  app.add_option("--only", f.how.only, "compare only the last token, or the one at a position")
      ->type_name("all|last|N");
  app.add_flag("--pooled", f.how.pooled,
               "pool the tokens of the run that has them one by one, where the other has pooled "
               "figures");
  app.add_flag("--across-phases", f.how.across_phases,
               "compare a token that one run prefilled with the same token decoded by the other");
  app.add_flag("--convert-std", f.how.convert_std,
               "convert the std of the sample (n - 1) to that of the population (n)");
  app.add_option("--threads", f.threads, "1 to 1024 (default: the cores of this machine)");
  AddFormat(app, f.format);
  app.footer("Example:\n  lab diff mine.jsonl theirs.jsonl --explain");
  if (!ParseArgs(app, argc, argv)) return false;
  CheckThreads(f.threads);
  ParseFormat(f.format);
  return true;
}

// The tokens that the oracles are to run.
std::vector<int32_t> IdsOf(const Flags& f, const RunRecord& a, const RunRecord& b) {
  const auto& ids = a.header.ids ? a.header.ids : b.header.ids;
  if (!ids) Fail("--model {}: neither file says which tokens were run", f.model);
  return {ids->begin(),
          ids->begin() + static_cast<ptrdiff_t>(std::min(ids->size(), kOracleTokens))};
}

void CheckModel(const Flags& f, const Qwen2& model, std::span<const int32_t> ids,
                const RunRecord& run) {
  for (const int32_t id : ids)
    if (id < 0 || static_cast<size_t>(id) >= model.config.vocab)
      Fail("--model {}: token {} of the run is outside its vocabulary", f.model, id);
  if (run.header.layers && *run.header.layers != model.config.layers)
    Fail("--model {}: it has {} layers, the run in {} has {}", f.model, model.config.layers,
         run.header.path, *run.header.layers);
}

// The run whose values explain the other: one that has every token by itself, tensors first.
const RunRecord* Explainer(const RunRecord& run) {
  const size_t tokens = run.header.ids ? run.header.ids->size() : 0;
  std::set<size_t> apart;
  for (const auto& [place, record] : run.tokens)
    if (record.row || record.figures.std) apart.insert(place.token);
  return tokens > 0 && apart.size() == tokens ? &run : nullptr;
}

void Explain(const RunRecord& ours, const RunRecord& theirs, const char* name,
             const RunContract& contract, const Qwen2Config* config, DiffResult& result) {
  for (Explanation& e : ExplainRun(ours, theirs, contract, config)) {
    e.run = name;
    result.explanations.push_back(std::move(e));
  }
}

void ExplainWithoutModel(const RunRecord& a, const RunRecord& b, DiffResult& result) {
  const RunContract& contract = result.runs.contract;
  const RunRecord *in_a = Explainer(a), *in_b = Explainer(b);
  if (in_a && in_b && b.has_tensors() && !a.has_tensors()) in_a = nullptr;
  if (in_a) return Explain(a, b, "B", contract, nullptr, result);
  if (in_b) return Explain(b, a, "A", contract, nullptr, result);
  Fail(
      "--explain: neither run has every token by itself; give --model, or a trace or dump of all "
      "tokens");
}

RunContract OwnContract(const RunRecord& run, const RunComparison& runs) {
  return ContractOf(run.header).value_or(runs.contract);
}

void UseModel(const Flags& f, const RunRecord& a, const RunRecord& b, DiffResult& result) {
  const std::vector<int32_t> ids = IdsOf(f, a, b);
  const Qwen2 model = OpenModel(f.model);
  CheckModel(f, model, ids, a);
  CheckModel(f, model, ids, b);
  std::vector<RunContract> contracts;
  for (const RunRecord* run : {&a, &b})
    if (const auto contract = ContractOf(run->header)) contracts.push_back(*contract);
  if (contracts.size() == 2)
    contracts.push_back(LargerContract(contracts[0], contracts[1]));
  else
    for (const Contract c : {Contract::q16, Contract::q8}) contracts.push_back({c, DefaultKv(c)});
  const ReferenceRuns reference(model, ids, contracts, f.threads);
  result.runs = CompareRuns(a, b, f.how, &reference);
  if (result.runs.verdict() != RunVerdict::not_comparable) {
    const auto judge = [&](const RunRecord& run) {
      return CompareRuns(run, reference.oracle(OwnContract(run, result.runs)), f.how, &reference);
    };
    result.a_oracle = judge(a);
    result.b_oracle = judge(b);
  }
  if (!f.explain) return;
  for (const auto& [name, run] : {std::pair("A", &a), {"B", &b}}) {
    const RunContract own = OwnContract(*run, result.runs);
    Explain(reference.oracle(own), *run, name, own, &model.config, result);
  }
}

// Weight files are compared by other means (lab diff A.gguf B.apr); this is the one place that
// tells them from runs.
void RefuseWeightFile(const std::string& path) {
  const FileBytes file = FileBytes::Map(path);
  const auto bytes = file.bytes();
  constexpr std::string_view kMagic = "GGUF";
  if (bytes.size() >= 4 && std::equal(kMagic.begin(), kMagic.end(), bytes.begin()))
    Fail("{}: a weight file; this build compares traces and dumps only", path);
}

}  // namespace

int CmdDiff(int argc, char** argv) {
  Flags f;
  if (!ParseFlags(argc, argv, f)) return kPass;
  for (const std::string& path : {f.a, f.b}) RefuseWeightFile(path);
  const RunRecord a = ReadRun(f.a), b = ReadRun(f.b);
  DiffResult result = {&a, &b, CompareRuns(a, b, f.how, nullptr), {}, {}, {}, f.explain};
  if (!f.model.empty())
    UseModel(f, a, b, result);
  else if (f.explain)
    ExplainWithoutModel(a, b, result);
  PrintOut(ParseFormat(f.format) == Format::text ? DiffToText(result) : DiffToJsonl(result));
  return DiffExitCode(result);
}

}  // namespace lab
