// The names of ops, contracts and backends; apart from the rows, so that a reader of files links
// without any kernel.
#include <array>

#include "lab/names.h"
#include "lab/registry.h"

namespace lab {
namespace {

constexpr std::array kOpNames = {
#define OP(op, Args) std::string_view(#op),
#include "kernels/kernels.def"
};
constexpr std::array<std::string_view, 3> kContractNames = {"f32", "q8", "q16"};
constexpr std::array<std::string_view, 5> kBackendNames = {"oracle", "ref", "hwy", "cuda",
                                                           "cuda-host"};

}  // namespace

std::string_view NameOf(Op op) {
  return kOpNames[static_cast<size_t>(op)];
}
std::string_view NameOf(Contract contract) {
  return kContractNames[static_cast<size_t>(contract)];
}
std::string_view NameOf(Backend backend) {
  return kBackendNames[static_cast<size_t>(backend)];
}

Op ParseOp(std::string_view name, std::string_view flag) {
  return static_cast<Op>(IndexOfName(kOpNames, name, flag));
}
Contract ParseContract(std::string_view name, std::string_view flag) {
  return static_cast<Contract>(IndexOfName(kContractNames, name, flag));
}
Backend ParseBackend(std::string_view name, std::string_view flag) {
  return static_cast<Backend>(IndexOfName(kBackendNames, name, flag));
}

}  // namespace lab
