#pragma once
// The table of kernel rows, made from kernels/kernels.def.
#include <algorithm>
#include <cassert>
#include <span>
#include <string_view>
#include <typeinfo>

#include "kernels/dequant.h"
#include "kernels/embed.h"
#include "kernels/gate_up_swiglu.h"
#include "kernels/gqa_attention.h"
#include "kernels/matvec.h"
#include "kernels/quantize.h"
#include "kernels/residual_add.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/silu.h"
#include "kernels/swiglu.h"
#include "lab/parallel.h"

namespace lab {

enum class Op {
#define OP(op, Args) op,
#include "kernels/kernels.def"
};
/// Which numbers an op is meant to produce (notes/design.md).
enum class Contract { f32, q8, q16 };
/// cuda_host: the kernels of backend cuda on a CPU, every thread a fiber (notes/cuda.md).
enum class Backend { oracle, ref, hwy, cuda, cuda_host };

/// How many ops there are; they are numbered from 0 in the order of kernels.def.
constexpr size_t OpCount() {
  return 0
#define OP(op, Args) +1
#include "kernels/kernels.def"
      ;
}

std::string_view NameOf(Op op);
std::string_view NameOf(Contract contract);
std::string_view NameOf(Backend backend);
/// The value of that name; throws Error naming `flag` and the known names.
Op ParseOp(std::string_view name, std::string_view flag);
Contract ParseContract(std::string_view name, std::string_view flag);
Backend ParseBackend(std::string_view name, std::string_view flag);

/// One implementation of an op under a contract on a backend.
struct Row {
  Op op;
  Contract contract;
  Backend backend;
  std::string_view function;
  const std::type_info* args;     ///< the type that `run` takes
  void (*run)(const void* args);  ///< null: not built into this binary

  /// Whether the row spreads its work itself: it gets all items at once, on the caller's thread,
  /// and may throw Error.
  bool OnDevice() const { return backend == Backend::cuda || backend == Backend::cuda_host; }
};

std::span<const Row> Rows();
/// The first row of that description, or null.
const Row* FindRow(Op op, Contract contract, Backend backend);

/// The work of a row, cut: [0, items) in `slices` slices of neighbours that begin at multiples of
/// `grain`. The items are those of the arguments, or their tokens.
struct Slicing {
  size_t items = 0, grain = 1, slices = 0;
  bool of_tokens = false;

  /// Where slice s begins; slice s - 1 ends there, and is empty if it began there as well.
  size_t Begin(size_t s) const { return s == slices ? items : items * s / slices / grain * grain; }
};

/// The slices of a row's work on args (which have items), for so many threads.
template <class Args>
Slicing SlicesFor(const Args& args, size_t threads) {
  // Pieces of 2 million multiply-adds are long enough to stream, and the large matrices of a decode
  // have several to a thread (notes/results.md, "Pieces of a decode").
  constexpr size_t kWorthAPiece = 1 << 21, kMostPieces = 16;
  const size_t items = args.Items(), running = std::min(threads, items);
  size_t grain = 1, pieces = 1;
  if constexpr (requires { Args::kTokenGrain; }) {
    const size_t grains = args.tokens / Args::kTokenGrain;
    // Later tokens have more positions behind them: equal slices are unequal work.
    if (grains >= threads)
      return {args.tokens, Args::kTokenGrain, std::min(grains, threads * kMostPieces), true};
    // Else its items read the same: no finer than needed.
  } else {
    pieces = std::clamp<size_t>(args.Work() / running / kWorthAPiece, 1, kMostPieces);
  }
  if constexpr (requires { Args::kSliceGrain; }) grain = Args::kSliceGrain;
  return {items, grain, std::min(items, running * pieces)};
}

/// Runs a row on args, cut into slices of neighbouring items: one for each thread, or several where
/// they are large, of which a thread that is done takes the next. Every item is computed by the
/// same instructions whatever its slice, so the thread count changes no bit. Rows on a device are
/// not cut.
///
/// Args say how many items they have, how to cut themselves (and kSliceGrain, at multiples of
/// what), the Bytes that they read and write (each once; weights as stored), and their Work:
/// multiply-adds, roughly. Steps too small to pay for waking a thread (some 5 us) run on the
/// caller's. Args with kTokenGrain and SliceTokens are cut there if they have enough.
template <class Args>
void RunRow(const Row& row, const Args& args, int threads) {
  assert(*row.args == typeid(Args));
  constexpr size_t kWorthAThread = 1 << 14;
  if (!args.Items()) return;
  const size_t worth = std::min<size_t>(threads, args.Work() / kWorthAThread + 1);
  if (worth <= 1 || row.OnDevice()) return row.run(&args);
  const Slicing slicing = SlicesFor(args, worth);
  const auto run = [&](const Args& slice) { row.run(&slice); };
  ParallelEach(slicing.slices, worth, [&](size_t s) {
    const size_t begin = slicing.Begin(s), end = slicing.Begin(s + 1);
    if (begin == end) return;
    if constexpr (requires { Args::kTokenGrain; }) {
      if (slicing.of_tokens) return run(args.SliceTokens(begin, end));
    }
    run(args.Slice(begin, end));
  });
}

}  // namespace lab
