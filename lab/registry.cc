#include "lab/registry.h"

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

}  // namespace

// What a line of kernels.def declares and what rows it makes, by its backend. A line of backend
// cuda is one function compiled twice: by nvcc in namespace cuda, and by the host compiler in
// cuda_host.
#define DECLARE_oracle(op, function) void function(const RowArgs<Op::op, Backend::oracle>&);
#define DECLARE_ref(op, function) void function(const RowArgs<Op::op, Backend::ref>&);
#define DECLARE_hwy DECLARE_ref
#define DECLARE_cuda(op, function) \
  namespace cuda {                 \
  DECLARE_ref(op, function)        \
  }                                \
  namespace cuda_host {            \
  DECLARE_ref(op, function)        \
  }
#define KERNEL(op, contract, backend, function) DECLARE_##backend(op, function)
#include "kernels/kernels.def"

#define ROW(op, contract, backend, name, run)                                                      \
  {Op::op, Contract::contract, Backend::backend, name, &typeid(RowArgs<Op::op, Backend::backend>), \
   run},
#define BUILT(op, backend, function) &Erased<RowArgs<Op::op, Backend::backend>, function>
#if LAB_WITH_CUDA
#define BUILT_CUDA BUILT
#else
#define BUILT_CUDA(op, backend, function) nullptr
#endif
#if LAB_WITH_CUDA_HOST
#define BUILT_CUDA_HOST BUILT
#else
#define BUILT_CUDA_HOST(op, backend, function) nullptr
#endif
#define ROWS_oracle(op, contract, function) \
  ROW(op, contract, oracle, #function, BUILT(op, oracle, function))
#define ROWS_ref(op, contract, function) ROW(op, contract, ref, #function, BUILT(op, ref, function))
#define ROWS_hwy(op, contract, function) ROW(op, contract, hwy, #function, BUILT(op, hwy, function))
#define ROWS_cuda(op, contract, function)                                  \
  ROW(op, contract, cuda, #function, BUILT_CUDA(op, cuda, cuda::function)) \
  ROW(op, contract, cuda_host, #function "Host",                           \
      BUILT_CUDA_HOST(op, cuda_host, cuda_host::function))

std::span<const Row> Rows() {
  static const Row kRows[] = {
#define KERNEL(op, contract, backend, function) ROWS_##backend(op, contract, function)
#include "kernels/kernels.def"
  };
  return kRows;
}

const Row* FindRow(Op op, Contract contract, Backend backend) {
  for (const Row& row : Rows())
    if (row.op == op && row.contract == contract && row.backend == backend) return &row;
  return nullptr;
}

}  // namespace lab
