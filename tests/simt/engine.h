#pragma once
// What the parts of the SIMT layer share.
#include <string>

#include "tests/simt/simt.h"

namespace lab::cuda_host {

/// Ends the launch: RunGrid throws Error with the message, behind the place of the thread that
/// runs.
[[noreturn]] void Fault(const std::string& message);

/// Whether a thread of a kernel runs now, and which one of its block.
bool InKernel();
unsigned ThreadNumber();

/// Whether p is on the stack of the thread that runs now.
bool OnOwnStack(const void* p);

// ---- memory.cc

constexpr size_t kMostShared = 227 << 10;  ///< bytes of a block, as on sm_90
constexpr size_t kSharedRedzone = 64;      ///< behind every array

/// How far the block has come: rises with every __syncthreads, from block to block too.
extern unsigned block_epoch;
/// Likewise for a warp of the block, with every __syncwarp.
extern unsigned warp_epochs[32];

void BeginLaunch();
/// Forgets the shared memory of the block before.
void BeginBlock(size_t dynamic_shared);
/// "" or what was written outside device memory.
std::string DamagedRedzone();
/// Likewise behind the arrays of shared memory.
std::string DamagedShared();

}  // namespace lab::cuda_host
