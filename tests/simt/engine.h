#pragma once
// What the parts of the SIMT layer share.
#include <fmt/format.h>

#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/simt/simt.h"

namespace lab::cuda_host {

/// Accesses are not checked: while one is, and from a fault to the end of the launch. The binary
/// has one copy of every inline function, which may come from a file whose accesses are checked.
extern bool checks_off;

[[noreturn]] void EndLaunch(std::string&& message);
/// Ends the launch: RunGrid throws Error with the message, behind the place of the thread that
/// runs.
template <class... A>
[[noreturn]] void Fault(fmt::format_string<A...> format, A&&... args) {
  checks_off = true;
  EndLaunch(fmt::format(format, std::forward<A>(args)...));
}

/// Whether a thread of a kernel runs now, and which one of its block.
bool InKernel();
unsigned ThreadNumber();

/// Whether p is on the stack of the thread that runs now.
bool OnOwnStack(const void* p);

/// Whether p is near the stack frame of whoever launched.
bool OnLaunchingStack(const void* p);

// ---- memory.cc

constexpr size_t kMostShared = 227 << 10;  ///< bytes of a block, as on sm_90
constexpr size_t kSharedRedzone = 64;      ///< behind every array

/// How far the block has come: rises with every __syncthreads, from block to block too.
extern unsigned block_epoch;
/// Likewise for a warp of the block, with every __syncwarp.
extern unsigned warp_epochs[32];

/// What a block of device memory remembers of a word: who wrote it last, and when.
struct GlobalWord {
  unsigned block_epoch, warp_epoch;
  uint16_t thread;
  uint8_t bytes;  // of the word, as a mask
};
struct Allocation {
  size_t bytes;
  std::vector<GlobalWord> words;  // empty until a kernel writes
};
/// By their first byte.
std::map<uint8_t*, Allocation>& Allocations();
constexpr size_t kRedzone = 256;

struct SharedArray {
  const void* key;  // null: the dynamic one
  uint8_t* at;
  size_t bytes;
};
/// Of the block that runs.
std::span<const SharedArray> SharedArrays();
/// All shared memory; kMostShared bytes.
uint8_t* SharedMemory();

void BeginLaunch();
/// Forgets the shared memory of the block before.
void BeginBlock(size_t dynamic_shared);
/// "" or what was written outside device memory.
std::string DamagedRedzone();
/// Likewise behind the arrays of shared memory.
std::string DamagedShared();

// ---- mma.cc

/// Adds A B to the c of every lane; false where they came for different instructions.
bool MultiplyFragments(const MmaLane* const (&lanes)[32]);

// ---- access.cc

/// What a kernel may do with memory: its own, initialised, and no other thread's at the same time.
/// Ends the launch otherwise. Called for every load and store where the compiler instruments them.
void CheckAccess(const void* p, size_t bytes, bool is_write);
/// Where an asynchronous copy is begun; when it is waited for, both its accesses are checked.
void CheckCopyBegins(const void* to, const void* from, size_t bytes);
void BeginLaunchOfAccesses();
void BeginBlockOfAccesses();

}  // namespace lab::cuda_host
