#include "lab/method_error.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "lab/facts.h"
#include "lab/names.h"

namespace lab {
namespace {

struct TableRow {
  Tap tap;
  // For token 0 and for the others: the yardstick, a KV cache of half floats, q16, q8.
  double f32[2], half_kv[2], q16[2], q8[2];
};
constexpr TableRow kTable[] = {
#define METHOD_ERROR(tap, f32_first, f32, kv_first, kv, q16_first, q16, q8_first, q8) \
  {Tap::tap, {f32_first, f32}, {kv_first, kv}, {q16_first, q16}, {q8_first, q8}},
#include "lab/method_error.def"
#undef METHOD_ERROR
};
constexpr bool IsIndexedByTap() {
  for (size_t t = 0; t < std::size(kTable); ++t)
    if (kTable[t].tap != static_cast<Tap>(t)) return false;
  return std::size(kTable) == static_cast<size_t>(Tap::lm_head) + 1;
}
static_assert(IsIndexedByTap());

// Keeps every row of a pass in memory that the record owns.
template <class T>
class RowKeeper : public TapSink<T> {
 public:
  explicit RowKeeper(RunRecord& run) : run_(run) {}
  bool Wants(Tap, int) const override { return true; }
  void OnTap(const TapView<T>& v) override {
    for (size_t t = 0; t < v.tokens; ++t) {
      const T* row = v.values + t * v.stride;
      auto kept = std::make_shared<const std::vector<T>>(row, row + v.n);
      const auto* bytes = reinterpret_cast<const uint8_t*>(kept->data());
      run_.AddRow({v.tap, v.layer, v.first_token + t},
                  {sizeof(T) == 8 ? StoredType::f64 : StoredType::f32, {bytes, v.n * sizeof(T)}});
      run_.owners.push_back(std::move(kept));
    }
  }

 private:
  RunRecord& run_;
};

template <class T>
void RunInto(const Qwen2& model, Backend backend, RunContract c, std::span<const int32_t> ids,
             int threads, RunRecord& run) {
  RowKeeper<T> keeper(run);
  Forward<T> forward(model, RowSet(backend, c.contract), c.kv, threads, ids.size());
  forward.Run(ids, &keeper);
}

double RowDistance(const RunRecord& a, const RunRecord& b, const Place& place) {
  constexpr StdKind kKind = StdKind::population;
  return DistanceOf(FactsOf(a.tokens.at(place), kKind), FactsOf(b.tokens.at(place), kKind))
      .at_least;
}

}  // namespace

std::string NameOf(const RunContract& c) {
  return c.kv == DefaultKv(Contract::f32) && c.contract == Contract::f32
             ? std::string(NameOf(c.contract))
             : fmt::format("{} (KV {})", NameOf(c.contract), NameOf(c.kv));
}

RunContract LargerContract(const RunContract& a, const RunContract& b) {
  const auto rank = [](Contract c) { return c == Contract::q8 ? 2 : c == Contract::q16 ? 1 : 0; };
  return {rank(a.contract) >= rank(b.contract) ? a.contract : b.contract, std::max(a.kv, b.kv)};
}

std::optional<RunContract> ContractOf(const RunHeader& header) {
  if (!header.contract) return std::nullopt;
  const Contract contract = ParseContract(*header.contract, header.path + ": contract");
  const KvType kv =
      header.kv ? ParseKv(*header.kv, header.path + ": KV type") : DefaultKv(contract);
  return RunContract{contract, kv};
}

std::vector<RunContract> CandidateContracts(const std::optional<RunContract>& a,
                                            const std::optional<RunContract>& b) {
  if (a && b) return {LargerContract(*a, *b)};
  const RunContract known = a ? *a : b.value_or(RunContract{Contract::f32, KvType::f32});
  std::vector<RunContract> candidates;
  for (const Contract c : {Contract::f32, Contract::q16, Contract::q8}) {
    const RunContract larger = LargerContract(known, {c, DefaultKv(c)});
    if (candidates.empty() || candidates.back() != larger) candidates.push_back(larger);
  }
  return candidates;
}

RunRecord RecordPass(const Qwen2& model, Backend backend, RunContract contract,
                     std::span<const int32_t> ids, int threads) {
  RunRecord run;
  RunHeader& h = run.header;
  h.path = fmt::format("{} {}", NameOf(backend), NameOf(contract));
  h.layers = model.config.layers;
  h.ids.emplace(ids.begin(), ids.end());
  h.contract = NameOf(contract.contract), h.kv = NameOf(contract.kv);
  h.std_kind = StdKind::population;
  h.backend = NameOf(backend);
  if (backend == Backend::oracle) {
    h.arithmetic = StoredType::f64;
    RunInto<double>(model, backend, contract, ids, threads, run);
  } else {
    h.arithmetic = StoredType::f32;
    RunInto<float>(model, backend, contract, ids, threads, run);
  }
  return run;
}

ReferenceRuns::ReferenceRuns(const Qwen2& model, std::vector<int32_t> ids,
                             std::vector<RunContract> contracts, int threads)
    : yardstick_(RecordPass(model, Backend::ref, {Contract::f32, KvType::f32}, ids, threads)) {
  contracts.push_back({Contract::f32, KvType::f32});
  for (const RunContract& c : contracts)
    if (!oracles_.contains(c))
      oracles_.emplace(c, RecordPass(model, Backend::oracle, c, ids, threads));
}

std::optional<double> ReferenceRuns::MethodError(const RunContract& contract,
                                                 const Place& place) const {
  if (!Has(contract, place)) return std::nullopt;
  return std::max(RowDistance(oracle(contract), exact(), place),
                  RowDistance(yardstick_, exact(), place));
}

double EstimatedMethodError(const RunContract& contract, Tap tap, bool first_token, double norm) {
  const TableRow& row = kTable[static_cast<size_t>(tap)];
  const size_t column = first_token ? 0 : 1;
  double relative = row.f32[column];
  if (contract.kv == KvType::f16) relative = std::max(relative, row.half_kv[column]);
  if (contract.contract == Contract::q16) relative = std::max(relative, row.q16[column]);
  if (contract.contract == Contract::q8) relative = std::max(relative, row.q8[column]);
  return relative * norm;
}

}  // namespace lab
