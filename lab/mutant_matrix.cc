#include "lab/mutant_matrix.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "lab/judge.h"

namespace lab {
namespace {

// Sums up the comparisons of one mutant on one op.
class LineBuilder {
 public:
  LineBuilder(const Mutant& mutant, Op op) {
    line_.mutant = &mutant;
    line_.op = op;
  }

  void Compare(const Row& row, const Case& c, Oracles& oracles, bool half_kv, int threads) {
    // Twice: a mutant that differs from run to run shows in no single one.
    const Verdict v = JudgeRow(c, {&row, line_.mutant}, oracles.Of(row.contract, half_kv), half_kv,
                               threads, 2, LanesOf(row));
    if (v.status != Status::pass && v.status != Status::fail) return;
    const bool failed = v.status == Status::fail;
    ++line_.compared;
    line_.failed += failed;
    line_.nmse += !v.usual.nmse;
    line_.cosine += !v.usual.cosine;
    line_.allclose += !v.usual.allclose;
    killed_[&row] |= failed;
    if (failed && line_.mutant->correct && line_.wrong.empty())
      line_.wrong = fmt::format("{} on {}: {}", row.function, c.name, v.why);
  }

  bool Killed(const Row& row) const {
    const auto found = killed_.find(&row);
    return !line_.mutant->correct && found != killed_.end() && found->second;
  }

  MutantLine Finish() {
    for (const auto& [row, killed] : killed_)
      if (!killed && !line_.mutant->correct) line_.survivors.emplace_back(row->function);
    std::sort(line_.survivors.begin(), line_.survivors.end());
    return std::move(line_);
  }

 private:
  MutantLine line_;
  std::map<const Row*, bool> killed_;
};

}  // namespace

std::vector<MutantLine> RunMutants(const std::vector<const Mutant*>& mutants,
                                   const std::vector<const Row*>& rows,
                                   const std::vector<Case>& cases, int threads, bool until_killed) {
  std::vector<Oracles> oracles(cases.begin(), cases.end());
  const auto run = [&](const Mutant& mutant, Op op) {
    LineBuilder line(mutant, op);
    for (const Row* row : rows) {
      if (row->op != op) continue;
      for (size_t i = 0; i < cases.size(); ++i) {
        if (cases[i].op != op) continue;
        if (until_killed && line.Killed(*row)) break;
        line.Compare(*row, cases[i], oracles[i], false, threads);
        if (op == Op::gqa_attention) line.Compare(*row, cases[i], oracles[i], true, threads);
      }
    }
    return line.Finish();
  };
  const auto selected = [&](Op op) {
    return std::any_of(rows.begin(), rows.end(), [&](const Row* row) { return row->op == op; }) &&
           std::any_of(cases.begin(), cases.end(), [&](const Case& c) { return c.op == op; });
  };
  std::vector<MutantLine> lines;
  for (const Mutant* mutant : mutants) {
    std::optional<MutantLine> idle;
    const size_t before = lines.size();
    for (size_t o = 0; o < OpCount(); ++o) {
      const Op op = static_cast<Op>(o);
      if (!mutant->Wraps(op) || !selected(op)) continue;
      MutantLine line = run(*mutant, op);
      if (line.compared > 0)
        lines.push_back(std::move(line));
      else
        idle = std::move(line);
    }
    if (lines.size() == before && idle) lines.push_back(std::move(*idle));
  }
  return lines;
}

}  // namespace lab
