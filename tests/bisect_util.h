#pragma once
// Sweeps of Bisector over right candidates and over mutants, on any model.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "lab/bisect.h"
#include "lab/select.h"
#include "lab/shard.h"
#include "lab/use.h"

namespace lab {

/// Runs every backend, contract, KV type and thread count on every prompt; returns how many of
/// these passes were called wrong. `runs`, if set: how many there were.
inline size_t CountAlarms(const Qwen2& model, const std::vector<std::vector<int32_t>>& prompts,
                          const std::vector<Contract>& contracts, const std::vector<int>& threads,
                          size_t* runs) {
  size_t alarms = 0;
  for (const std::vector<int32_t>& ids : prompts)
    for (const Contract contract : contracts)
      for (const KvType kv : {KvType::f32, KvType::f16})
        for (const int n : threads) {
          Bisector bisector(model, contract, kv, ids, n);
          for (const Backend backend : {Backend::ref, Backend::hwy}) {
            const BisectResult result = bisector.Run(RowSet(backend, contract), {});
            ++*runs;
            if (!result.FirstWrong() && !result.not_finite) continue;
            ++alarms;
            ADD_FAILURE() << NameOf(backend) << " " << NameOf(contract) << " KV " << NameOf(kv)
                          << " " << n << " threads: "
                          << (result.FirstWrong() ? result.FirstWrong()->name : *result.not_finite);
          }
        }
  return alarms;
}

/// Mutants whose slip can be smaller than what rounding may do to a value: an exp that ends at 104
/// where nothing is that large, eps beside a mean square that is larger, angles of few positions,
/// scores below 88.
inline constexpr std::string_view kWithinRounding[] = {
    "exp_overflow", "norm_eps", "norm_eps_outside", "rope_float32_angles", "softmax_no_max"};

/// What became of runs with one mutant each.
struct MutantSweep {
  size_t runs = 0;                        ///< that changed a bit of the step's result
  size_t unchanged = 0;                   ///< that did not: nothing to find
  std::set<std::string> found;            ///< mutants that were named in every run
  std::set<std::string> missed;           ///< mutants that a run called right
  std::vector<std::string> missed_runs;   ///< these runs
  std::vector<std::string> misnamed;      ///< runs that named another op or layer
  std::vector<std::string> false_alarms;  ///< correct reorderings that were called wrong

  void Add(const std::string& run, const Mutant& mutant, Op op, int layer,
           const BisectResult& result) {
    const bool changed = std::any_of(
        result.steps.begin(), result.steps.end(),
        [](const StepVerdict& s) { return s.use.mutant && s.verdict.status != Status::not_run; });
    const StepVerdict* first = result.FirstWrong();
    const std::string name(mutant.name);
    ++(changed ? runs : unchanged);
    if (mutant.correct && first) false_alarms.push_back(run);
    if (mutant.correct || !changed) return;
    if (!first) {
      missed_runs.push_back(run);
      missed.insert(name);
      found.erase(name);
    } else if (first->use.row->op != op || first->layer != layer) {
      misnamed.push_back(fmt::format("{}: {}", run, first->name));
    } else if (!missed.contains(name)) {
      found.insert(name);
    }
  }
};

/// Whether the step is the same as under contract f32.
inline bool RunsUnderF32(Op op, Contract contract) {
  const bool half_kv = op == Op::gqa_attention && DefaultKv(contract) == KvType::f16;
  return contract != Contract::f32 && !half_kv && !FindRow(op, contract, Backend::oracle);
}

/// Mutants of the shard, in each op that they know, in each of the layers. With `whole` all steps
/// of a pass are judged, else those of the layer alone: what a row makes of the oracle's input does
/// not depend on the other layers, which the clean runs have judged.
inline MutantSweep SweepMutants(const Qwen2& model, const std::vector<int32_t>& ids,
                                const std::vector<int>& layers, int threads, bool whole = true,
                                Shard shard = {}) {
  MutantSweep sweep;
  for (const Contract contract : {Contract::f32, Contract::q16, Contract::q8}) {
    Bisector bisector(model, contract, DefaultKv(contract), ids, threads);
    const auto run = [&](const Mutant& mutant, Op op, int layer) {
      const std::string where = layer == kNoLayer ? "" : fmt::format("@{}", layer);
      const std::string rule = fmt::format("{}{}=mutant:{}", NameOf(op), where, mutant.name);
      RowSet rows(Backend::hwy, contract);
      rows.Use(ParseUse({rule}, contract, model.config.layers));
      StepFilter filter;
      if (!whole && layer == kNoLayer) filter.ops = NameOf(op);
      if (!whole && layer != kNoLayer) filter.layers = {{layer, layer}};
      sweep.Add(fmt::format("{} {}", NameOf(contract), rule), mutant, op, layer,
                bisector.Run(rows, filter));
    };
    size_t index = 0;
    for (const Mutant& mutant : Mutants()) {
      if (!shard.Has(index++) || mutant.guarded) continue;
      for (const Op op : ForwardOps(contract)) {
        if (!mutant.Wraps(op) || RunsUnderF32(op, contract)) continue;
        if (op == Op::embed)
          run(mutant, op, kNoLayer);
        else
          for (const int layer : layers) run(mutant, op, layer);
      }
    }
  }
  return sweep;
}

}  // namespace lab
