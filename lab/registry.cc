#include "lab/registry.h"

#include <array>

#include "lab/names.h"

namespace lab {
namespace {

// The element type of a backend's activations, and the argument type of an op.
template <Backend B>
using Scalar = std::conditional_t<B == Backend::oracle, double, float>;
template <Op O, class T>
struct ArgsOf;
#define OP(op, Args)         \
  template <class T>         \
  struct ArgsOf<Op::op, T> { \
    using Type = Args<T>;    \
  };
#include "kernels/kernels.def"
template <Op O, Backend B>
using RowArgs = typename ArgsOf<O, Scalar<B>>::Type;

template <class Args, void (*kFunction)(const Args&)>
void Erased(const void* args) {
  kFunction(*static_cast<const Args*>(args));
}

constexpr std::array kOpNames = {
#define OP(op, Args) std::string_view(#op),
#include "kernels/kernels.def"
};
constexpr std::array<std::string_view, 3> kContractNames = {"f32", "q8", "q16"};
constexpr std::array<std::string_view, 4> kBackendNames = {"oracle", "ref", "hwy", "cuda"};

}  // namespace

#define KERNEL(op, contract, backend, function) \
  void function(const RowArgs<Op::op, Backend::backend>&);
#include "kernels/kernels.def"

std::span<const Row> Rows() {
  static const Row kRows[] = {
#define KERNEL(op, contract, backend, function) \
  {Op::op,                                      \
   Contract::contract,                          \
   Backend::backend,                            \
   #function,                                   \
   &typeid(RowArgs<Op::op, Backend::backend>),  \
   &Erased<RowArgs<Op::op, Backend::backend>, function>},
#include "kernels/kernels.def"
  };
  return kRows;
}

const Row* FindRow(Op op, Contract contract, Backend backend) {
  for (const Row& row : Rows())
    if (row.op == op && row.contract == contract && row.backend == backend) return &row;
  return nullptr;
}

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
