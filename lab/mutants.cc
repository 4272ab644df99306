#include "lab/mutants.h"

#include <vector>

#include "lab/mutants_attention.h"
#include "lab/mutants_op.h"
#include "lab/mutants_output.h"
#include "lab/mutants_sum.h"
#include "lab/mutants_weight.h"
#include "lab/names.h"

namespace lab {
namespace {

// M on the arguments of one op, where it knows them.
template <class M, template <class> class Args>
bool RunOn(const Row& row, const void* args, int threads) {
  const auto run = [&]<class T>(const Args<T>& a) {
    if constexpr (requires(const Inner& inner) { M()(a, inner); })
      return M()(a, Inner{row, threads});
    else
      return false;
  };
  return row.backend == Backend::oracle ? run(*static_cast<const Args<double>*>(args))
                                        : run(*static_cast<const Args<float>*>(args));
}

template <class M>
bool RunMutant(const Row& row, const void* args, int threads) {
  switch (row.op) {
#define OP(op, Args) \
  case Op::op:       \
    return RunOn<M, Args>(row, args, threads);
#include "kernels/kernels.def"
  }
  return false;
}

template <class M>
constexpr uint32_t OpsOf() {
  uint32_t ops = 0;
#define OP(op, Args)                                                         \
  if (requires(const Args<float>& a, const Inner& inner) { M()(a, inner); }) \
    ops |= uint32_t{1} << static_cast<int>(Op::op);
#include "kernels/kernels.def"
  return ops;
}

}  // namespace

std::span<const Mutant> Mutants() {
  static const Mutant kMutants[] = {
#define MUTANT(name, Type, slip) {#name, slip, false, false, OpsOf<Type>(), &RunMutant<Type>},
#define GUARDED(name, Type, slip) {#name, slip, false, true, OpsOf<Type>(), &RunMutant<Type>},
#define REORDERING(name, Type, what) {#name, what, true, false, OpsOf<Type>(), &RunMutant<Type>},
#include "lab/mutants.def"
  };
  return kMutants;
}

const Mutant& FindMutant(std::string_view name, std::string_view flag) {
  std::vector<std::string_view> names;
  for (const Mutant& m : Mutants()) names.push_back(m.name);
  return Mutants()[IndexOfName(names, name, flag)];
}

}  // namespace lab
