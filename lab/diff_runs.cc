#include "lab/diff_runs.h"

#include <algorithm>
#include <set>

#include "lab/error.h"

namespace lab {
namespace {

// Oracles keep 13 MB a token for the 1.5B model; later tokens are judged by the table.
constexpr size_t kOracleTokens = 64;

// The tokens that the oracles are to run.
std::vector<int32_t> IdsOf(const DiffOptions& f, const RunRecord& a, const RunRecord& b) {
  const auto& ids = a.header.ids ? a.header.ids : b.header.ids;
  if (!ids) Fail("--model {}: neither file says which tokens were run", f.model);
  return {ids->begin(),
          ids->begin() + static_cast<ptrdiff_t>(std::min(ids->size(), kOracleTokens))};
}

void CheckModel(const DiffOptions& f, const Qwen2& model, std::span<const int32_t> ids,
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

void UseModel(const DiffOptions& f, const RunRecord& a, const RunRecord& b, DiffResult& result) {
  const std::vector<int32_t> ids = IdsOf(f, a, b);
  const Qwen2 model = OpenModel(f.model);
  CheckModel(f, model, ids, a);
  CheckModel(f, model, ids, b);
  const auto own_a = ContractOf(a.header), own_b = ContractOf(b.header);
  std::vector<RunContract> contracts = CandidateContracts(own_a, own_b);
  for (const auto& own : {own_a, own_b})
    if (own) contracts.push_back(*own);
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

}  // namespace

DiffResult DiffRuns(const RunRecord& a, const RunRecord& b, const DiffOptions& f) {
  DiffResult result = {&a, &b, CompareRuns(a, b, f.how, nullptr), {}, {}, {}, f.explain};
  if (!f.model.empty())
    UseModel(f, a, b, result);
  else if (f.explain)
    ExplainWithoutModel(a, b, result);
  return result;
}

}  // namespace lab
