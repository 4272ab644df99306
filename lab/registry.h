#pragma once
// The table of kernel rows, made from kernels/kernels.def.
#include <algorithm>
#include <atomic>
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

/// f(begin, end) for `slices` slices of [0, items) that begin at multiples of `grain`, by so many
/// threads: one that is done takes the next.
template <class F>
void ForSlices(size_t items, size_t grain, size_t slices, size_t threads, F&& f) {
  const auto begin = [&](size_t s) {
    return s == slices ? items : items * s / slices / grain * grain;
  };
  std::atomic<size_t> next = 0;
  ParallelFor(static_cast<int>(threads), [&](int) {
    for (size_t s; (s = next++) < slices;)
      if (begin(s) < begin(s + 1)) f(begin(s), begin(s + 1));
  });
}

/// Runs a row on args, cut into slices of neighbouring items: one for each thread, or several where
/// they are large, of which a thread that is done takes the next. So a core that is slowed down by
/// others keeps nobody waiting for long. Every item is computed by the same instructions whatever
/// its slice, so the thread count changes no bit. Rows on a device are not cut.
///
/// Args say how many items they have, how to cut themselves (and kSliceGrain, at multiples of
/// what), the Bytes that they read and write (each once; weights as stored), and their Work:
/// multiply-adds, roughly. Steps too small to pay for waking a thread (some 5 us) run on the
/// caller's. Args with kTokenGrain and SliceTokens are cut there if they have enough.
template <class Args>
void RunRow(const Row& row, const Args& args, int threads) {
  assert(*row.args == typeid(Args));
  constexpr size_t kWorthAThread = 1 << 14, kWorthAPiece = 1 << 21, kMostPieces = 16;
  const size_t items = args.Items(), work = args.Work();
  if (!items) return;
  const size_t worth = std::min<size_t>(threads, work / kWorthAThread + 1);
  if (worth <= 1 || row.OnDevice()) return row.run(&args);
  if constexpr (requires { Args::kTokenGrain; }) {
    const size_t grains = args.tokens / Args::kTokenGrain;
    if (grains >= worth) {
      // Later tokens have more positions behind them: equal slices are unequal work.
      const size_t slices = std::min(grains, worth * kMostPieces);
      return ForSlices(args.tokens, Args::kTokenGrain, slices, worth, [&](size_t t, size_t end) {
        const Args slice = args.SliceTokens(t, end);
        row.run(&slice);
      });
    }
  }
  const size_t running = std::min(worth, items);
  size_t pieces = std::clamp<size_t>(work / running / kWorthAPiece, 1, kMostPieces);
  // What is cut into tokens where it can be has items that read the same: no finer than needed.
  if constexpr (requires { Args::kTokenGrain; }) pieces = 1;
  const size_t slices = std::min(items, running * pieces);
  size_t grain = 1;
  if constexpr (requires { Args::kSliceGrain; }) grain = Args::kSliceGrain;
  ForSlices(items, grain, slices, running, [&](size_t first, size_t last) {
    const Args slice = args.Slice(first, last);
    row.run(&slice);
  });
}

}  // namespace lab
