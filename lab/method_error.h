#pragma once
// How far apart two right runs may be. The rule is that of whole passes (lab/composed.h): at most
// four times what the contract itself costs at that place, eight times across KV types.
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lab/run_record.h"
#include "model/forward.h"

namespace lab {

struct RunContract {
  Contract contract;
  KvType kv;
  auto operator<=>(const RunContract&) const = default;
};
/// "f32", "q8 (KV f16)".
std::string NameOf(const RunContract& c);
/// The one that costs more, in activations and in KV type.
RunContract LargerContract(const RunContract& a, const RunContract& b);
/// What a file says of its contract, if it says it. A KV type that is not named is the default.
std::optional<RunContract> ContractOf(const RunHeader& header);
/// The contracts that two runs may have to be judged by, narrowest first: the larger of the two;
/// where one is unknown, every default contract that is as large as the other.
std::vector<RunContract> CandidateContracts(const std::optional<RunContract>& a,
                                            const std::optional<RunContract>& b);

/// Runs a pass over all ids at once and keeps every tap. Memory: 13 MB a token
/// for the 1.5B model.
RunRecord RecordPass(const Qwen2& model, Backend backend, RunContract contract,
                     std::span<const int32_t> ids, int threads);

/// The oracles and the yardstick over the tokens of a run, kept whole.
class ReferenceRuns {
 public:
  ReferenceRuns(const Qwen2& model, std::vector<int32_t> ids, std::vector<RunContract> contracts,
                int threads);
  const RunRecord& oracle(const RunContract& contract) const { return oracles_.at(contract); }
  const RunRecord& exact() const { return oracle({Contract::f32, KvType::f32}); }
  /// Whether the oracle of the contract was run, over that place.
  bool Has(const RunContract& contract, const Place& place) const {
    return oracles_.contains(contract) && exact().tokens.contains(place);
  }
  /// max(||oracle - oracle_f32||, ||yardstick - oracle_f32||) of the place; absent where the runs
  /// have no such place.
  std::optional<double> MethodError(const RunContract& contract, const Place& place) const;

 private:
  std::map<RunContract, RunRecord> oracles_;
  RunRecord yardstick_;
};

/// The same from the table in lab/method_error.def, for a row of norm `norm`: what the contract
/// cost at most at this tap in the 1.5B model (notes/numerics.md). Token 0, which carries the
/// massive activation, has figures of its own.
double EstimatedMethodError(const RunContract& contract, Tap tap, bool first_token, double norm);

}  // namespace lab
