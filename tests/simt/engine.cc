// Runs the threads of a grid as fibers, block after block. A warp runs until it can go no further,
// then another one, in an order drawn from a seed: so far ahead of each other that whoever reads
// without a barrier what another warp writes finds it missing in one order or the other.
#include "tests/simt/engine.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "kernels/device_error.h"
#include "tests/simt/fiber.h"

#if defined(__x86_64__) && !defined(LAB_SIMT_UCONTEXT)
asm(R"(
.text
.globl lab_simt_switch
.type lab_simt_switch, @function
lab_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size lab_simt_switch, .-lab_simt_switch
)");
#endif

namespace lab::cuda_host {

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
unsigned block_epoch = 0;
unsigned warp_epochs[32];
bool checks_off = false;

namespace {

constexpr unsigned kWarp = 32;

enum class State : uint8_t { ready, at_warp_op, at_barrier, done };

struct AsyncCopy {
  void* to;
  const void* from;
  size_t bytes, batch;
};

struct Lane {
  Fiber fiber;
  State state;
  uint3 index;
  // At a warp op: with what it came, and the answer.
  WarpOp op;
  bool is_signed;
  unsigned mask, source;
  uint64_t value, result;
  std::vector<AsyncCopy> copies;
  size_t batches;  // of copies, committed so far
};

// SplitMix64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  size_t Below(size_t n) { return static_cast<size_t>(Next() % n); }

 private:
  uint64_t state_;
};

uint64_t SeedFromEnvironment() {
  const char* text = std::getenv("LAB_SIMT_SEED");
  return text ? std::strtoull(text, nullptr, 10) : 1;
}

Random random_order(SeedFromEnvironment());
size_t grids_run = 0;
Fiber scheduler;
std::vector<Lane> lanes;  // of the block, as many as it has threads
std::unique_ptr<Stacks> stacks;
const std::function<void()>* kernel = nullptr;
Lane* running = nullptr;
const uint8_t* launching_frame = nullptr;
std::string fault;

size_t Warps() {
  return (lanes.size() + kWarp - 1) / kWarp;
}
std::span<Lane> LanesOf(size_t warp) {
  return std::span(lanes).subspan(warp * kWarp,
                                  std::min<size_t>(kWarp, lanes.size() - warp * kWarp));
}
bool HasReady(size_t warp) {
  const auto of_warp = LanesOf(warp);
  return std::any_of(of_warp.begin(), of_warp.end(),
                     [](const Lane& lane) { return lane.state == State::ready; });
}

void Stop(State state) {
  running->state = state;
  running->fiber.SwitchTo(scheduler);
}

void ThreadEntry() {
  Fiber::Entered(scheduler);
  (*kernel)();
  Stop(State::done);
}

void Resume(Lane& lane) {
  running = &lane;
  threadIdx = lane.index;
  scheduler.SwitchTo(lane.fiber);
  running = nullptr;
}

// ---- warp ops

// Lanes that wait for each other: those that came with the same op and mask.
struct Meeting {
  WarpOp op;
  unsigned mask, arrived;
};
std::vector<std::vector<Meeting>> meetings;  // of each warp

Meeting& MeetingOf(size_t warp, WarpOp op, unsigned mask) {
  for (Meeting& m : meetings[warp])
    if (m.op == op && m.mask == mask) return m;
  return meetings[warp].emplace_back(Meeting{op, mask, 0});
}

uint64_t Reduce(std::span<const Lane> warp, const Lane& of) {
  uint64_t result = 0;
  bool first = true;
  for (size_t i = 0; i < warp.size(); ++i) {
    if (!(of.mask >> i & 1)) continue;
    const auto value = static_cast<unsigned>(warp[i].value);
    const auto so_far = static_cast<unsigned>(result);
    const bool less =
        of.is_signed ? static_cast<int>(value) < static_cast<int>(so_far) : value < so_far;
    if (of.op == WarpOp::ballot)
      result |= uint64_t{value != 0} << i;
    else if (of.op == WarpOp::add)
      result = so_far + value;
    else if (first || less == (of.op == WarpOp::min))
      result = value;
    first = false;
  }
  return result;
}

void Multiply(std::span<const Lane> warp) {
  const MmaLane* fragments[kWarp];
  for (size_t i = 0; i < kWarp; ++i)
    fragments[i] = reinterpret_cast<const MmaLane*>(static_cast<uintptr_t>(warp[i].value));
  if (!MultiplyFragments(fragments)) Fault("an mma where another lane has another one");
}

bool Reduces(WarpOp op) {
  return op != WarpOp::shuffle && op != WarpOp::sync && op != WarpOp::mma;
}

// All lanes of the mask have come: gives each its result and lets it go on.
void Complete(std::span<Lane> warp, const Lane& of) {
  const unsigned mask = of.mask;
  const WarpOp op = of.op;
  const uint64_t common = Reduces(op) ? Reduce(warp, of) : 0;
  if (op == WarpOp::mma) Multiply(warp);
  for (size_t i = 0; i < warp.size(); ++i) {
    if (!(mask >> i & 1)) continue;
    warp[i].result = op == WarpOp::shuffle ? warp[warp[i].source].value : common;
    warp[i].state = State::ready;
  }
  if (op == WarpOp::sync) ++warp_epochs[static_cast<size_t>(&warp[0] - lanes.data()) / kWarp];
}

// ---- the order of things

// Lanes of a warp in a drawn order, until none can go on; now and then another warp comes first.
void RunWarp(size_t warp) {
  const std::span<Lane> of_warp = LanesOf(warp);
  do {
    const size_t first = random_order.Below(kWarp), step = random_order.Below(kWarp) | 1;
    for (size_t i = 0; i < kWarp; ++i) {
      const size_t at = (first + i * step) % kWarp;
      if (at >= of_warp.size() || of_warp[at].state != State::ready) continue;
      Resume(of_warp[at]);
      if (!fault.empty()) return;
    }
  } while (HasReady(warp) && random_order.Below(4) != 0);
}

std::string Stuck() {
  for (const Lane& lane : lanes)
    if (lane.state == State::at_warp_op) {
      const auto number = static_cast<size_t>(&lane - lanes.data());
      const auto warp = LanesOf(number / kWarp);
      const unsigned arrived = MeetingOf(number / kWarp, lane.op, lane.mask).arrived;
      const auto missing = static_cast<unsigned>(std::countr_zero(lane.mask & ~arrived));
      constexpr const char* kDoing[] = {"goes on",
                                        "is at another warp op or comes with another mask",
                                        "waits at __syncthreads", "has returned"};
      return fmt::format(
          "thread {} waits for lane {} of mask {:#010x}, which {}", number, missing, lane.mask,
          missing < warp.size() ? kDoing[static_cast<int>(warp[missing].state)] : "does not exist");
    }
  return "no thread can go on";
}

void ReleaseBarrier() {
  const bool at_warp_op = std::any_of(
      lanes.begin(), lanes.end(), [](const Lane& lane) { return lane.state == State::at_warp_op; });
  if (at_warp_op) return void(fault = Stuck());
  for (Lane& lane : lanes)
    if (lane.state == State::at_barrier) lane.state = State::ready;
  ++block_epoch;
}

void RunBlock(size_t dynamic_shared) {
  ++block_epoch;
  BeginBlock(dynamic_shared);
  meetings.assign(Warps(), {});
  for (size_t t = 0; t < lanes.size(); ++t) {
    lanes[t].state = State::ready;
    lanes[t].copies.clear();
    lanes[t].batches = 0;
    lanes[t].fiber.Reset(stacks->bottom(t), Stacks::usable(), ThreadEntry);
  }
  while (fault.empty()) {
    const size_t warps = Warps(), first = random_order.Below(warps);
    size_t i = 0;
    while (i < warps && !HasReady((first + i) % warps)) ++i;
    if (i < warps) {
      RunWarp((first + i) % warps);
    } else if (std::all_of(lanes.begin(), lanes.end(),
                           [](const Lane& lane) { return lane.state == State::done; })) {
      fault = DamagedShared();
      return;
    } else {
      ReleaseBarrier();
    }
  }
}

void PrepareLanes(dim3 block) {
  lanes.resize(block.count());
  for (size_t t = 0; t < lanes.size(); ++t) {
    const auto n = static_cast<unsigned>(t);
    lanes[t].index = {n % block.x, n / block.x % block.y, n / (block.x * block.y)};
  }
  if (!stacks || stacks->size() < lanes.size()) stacks = std::make_unique<Stacks>(lanes.size());
}

}  // namespace

void EndLaunch(std::string&& message) {
  {
    const std::string own = std::move(message);  // nothing on this stack will be destroyed
    fault = fmt::format("block {}, thread {}: {}", blockIdx.x, ThreadNumber(), own);
  }
  Stop(State::done);
  std::abort();  // nobody resumes it
}

bool InKernel() {
  return running != nullptr;
}
unsigned ThreadNumber() {
  return static_cast<unsigned>(running - lanes.data());
}
unsigned LaneIndex() {
  return ThreadNumber() % kWarp;
}
bool OnOwnStack(const void* p) {
  return running->fiber.Holds(p);
}

bool OnLaunchingStack(const void* p) {
  return p > launching_frame - (64 << 10) && p < launching_frame + (8 << 20);
}

void __syncthreads() {
  Stop(State::at_barrier);
}

uint64_t WarpExchange(WarpOp op, unsigned mask, uint64_t value, unsigned source, bool is_signed) {
  const unsigned number = ThreadNumber();
  const std::span<Lane> warp = LanesOf(number / kWarp);
  if (!(mask >> number % kWarp & 1)) Fault("not in the mask {:#010x} it came with", mask);
  if (op == WarpOp::shuffle && (source >= kWarp || !(mask >> source & 1)))
    Fault("shuffles from lane {}, which is not in mask {:#010x}", source, mask);
  Lane& self = *running;
  self.op = op;
  self.is_signed = is_signed;
  self.mask = mask;
  self.value = value;
  self.source = source;
  Meeting& meeting = MeetingOf(number / kWarp, op, mask);
  meeting.arrived |= 1u << number % kWarp;
  if (meeting.arrived == mask) {
    meeting = meetings[number / kWarp].back();
    meetings[number / kWarp].pop_back();
    Complete(warp, self);
  } else {
    Stop(State::at_warp_op);
  }
  return self.result;
}

void __pipeline_memcpy_async(void* shared, const void* global, size_t bytes) {
  CheckCopyBegins(shared, global, bytes);
  running->copies.push_back({shared, global, bytes, running->batches});
}
void __pipeline_commit() {
  ++running->batches;
}
void __pipeline_wait_prior(size_t batches) {
  std::erase_if(running->copies, [&](const AsyncCopy& copy) {
    const bool due = copy.batch + batches < running->batches;
    if (due) {
      CheckAccess(copy.from, copy.bytes, false);
      CheckAccess(copy.to, copy.bytes, true);
      std::memcpy(copy.to, copy.from, copy.bytes);
    }
    return due;
  });
}

void RunGrid(dim3 grid, dim3 block, size_t shared, const std::function<void()>& thread) {
  if (grid.count() == 0 || block.count() == 0 || block.count() > 1024 || shared > kMostShared)
    ThrowDeviceError("kernel launch", "invalid configuration argument");
  ++grids_run;
  gridDim = grid;
  blockDim = block;
  kernel = &thread;
  launching_frame = static_cast<const uint8_t*>(__builtin_frame_address(0));
  fault.clear();
  checks_off = false;
  BeginLaunch();
  PrepareLanes(block);
  const size_t blocks = grid.count(), first = random_order.Below(blocks);
  const bool backwards = random_order.Below(2) != 0;
  for (size_t i = 0; i < blocks && fault.empty(); ++i) {
    const auto b = static_cast<unsigned>((first + (backwards ? blocks - i : i)) % blocks);
    blockIdx = {b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)};
    RunBlock(shared);
  }
  if (fault.empty()) fault = DamagedRedzone();
  if (!fault.empty()) ThrowDeviceError("kernel on the host", fault);
}

size_t GridsRun() {
  return grids_run;
}

void SetScheduleSeed(uint64_t seed) {
  random_order = Random(seed);
}

}  // namespace lab::cuda_host
