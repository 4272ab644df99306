#include "lab/select.h"

#include <optional>

#include "lab/error.h"
#include "lab/names.h"

namespace lab {

std::vector<const Row*> SelectRows(const std::string& ops, const std::string& backend_name,
                                   const std::string& contract_name) {
  std::optional<Backend> backend;
  std::optional<Contract> contract;
  if (!backend_name.empty()) backend = ParseBackend(backend_name, "--backend");
  if (!contract_name.empty()) contract = ParseContract(contract_name, "--contract");
  const GlobList globs(ops);
  std::vector<const Row*> rows;
  for (const Row& row : Rows()) {
    if (row.backend == Backend::oracle) continue;
    if (!backend && row.backend == Backend::cuda_host) continue;
    if (backend && row.backend != *backend) continue;
    if (contract && row.contract != *contract) continue;
    if (!globs.Match(NameOf(row.op)) && !globs.Match(row.function)) continue;
    rows.push_back(&row);
  }
  if (rows.empty()) {
    std::vector<std::string_view> names;
    for (const Row& row : Rows()) names.insert(names.end(), {NameOf(row.op), row.function});
    throw Error(kNotComparable,
                fmt::format("--op {}: no kernel row of that backend and contract has such a name "
                            "or op{}; 'lab list kernels' names them",
                            ops.empty() ? "*" : Printable(ops), DidYouMean(ops, names)));
  }
  return rows;
}

std::vector<UseRule> ParseMutantUse(const std::vector<std::string>& texts) {
  std::vector<UseRule> rules = ParseUse(texts, Contract::f32, 0);
  for (const UseRule& rule : rules)
    if (rule.row) Fail("--use {}: only mutants here; --op chooses rows", rule.text);
  return rules;
}

RowUse UseOf(const Row& row, const std::vector<UseRule>& rules) {
  RowUse use = {&row};
  for (const UseRule& rule : rules)
    if (rule.op == row.op) use.mutant = rule.mutant;
  return use;
}

std::string NameOf(const RowUse& use) {
  return use.mutant ? fmt::format("{}+{}", use.row->function, use.mutant->name)
                    : std::string(use.row->function);
}

}  // namespace lab
