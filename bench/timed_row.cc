#include "bench/timed_row.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "lab/device.h"
#include "lab/traffic.h"

namespace lab {
namespace {

// Room behind a copy, as behind the weights of a Binding.
constexpr size_t kBehind = 256;

size_t Padded(size_t bytes) {
  return (bytes + kBehind + 63) / 64 * 64;
}

// The cv of a counter that is 0 would be 0 / 0, which JSON has no word for.
double NotZero(double value) {
  return std::max(value, 1e-12);
}

}  // namespace

TimedRow::TimedRow(const Case& c, const RowUse& use, bool half_kv, size_t lanes,
                   const TimingOptions& options)
    : use_(use), options_(options), binding_(c, use.row->contract, half_kv, Alignment::on) {
  binding_.Run(use_, options_.threads);
  verdict_ = Samples(c, use.row->contract, half_kv)
                 .Judge(binding_.outputs(), binding_.guards_intact(), lanes);
  judged_ = binding_.outputs();
  read_rate_ = options_.read_rate();
}

// The arguments once for each set of copies; the first time the copies are made.
template <class Args>
std::vector<Args> TimedRow::Copies(const Args& args) {
  Args original = args;
  size_t stride = 0;
  ForEachStream(original, [&](auto, size_t n) { stride += Padded(n); });
  // By Bytes(), not by the stride: of weights that are there in two forms a row reads one.
  const size_t sets = stride ? options_.cold_bytes / args.Bytes() + 1 : 1;
  if (sets == 1) return {original};
  const bool fill = copies_.empty();
  if (fill) copies_.resize(sets * stride);
  std::vector<Args> copies(sets, original);
  uint8_t* to = copies_.data();
  for (Args& copy : copies) {
    ForEachStream(copy, [&]<class P>(P& from, size_t n) {
      if (fill) std::memcpy(to, from, n);
      from = reinterpret_cast<P>(to);
      to += Padded(n);
    });
  }
  return copies;
}

// Every copy in turn, until there are launches enough that waiting for the last is little of all.
template <class Args>
void TimedRow::MakeGraph(const std::vector<Args>& copies) {
  graph_ = MakeDevicePass(use_.row->backend);
  const auto run = [&](Args args) {
    if constexpr (requires { args.scratch; }) {
      scratch_.resize(args.ScratchValues());
      args.scratch = scratch_.data();
    }
    RunUse(use_, args, options_.threads);
    graph_->EndLaunch();
  };
  const size_t rounds = std::max<size_t>(options_.launches / copies.size(), 1);
  launches_ = rounds * copies.size();
  graph_->KeepArguments([&] { std::for_each(copies.begin(), copies.end(), run); });
  graph_->Capture([&] {
    for (size_t i = 0; i < rounds; ++i) std::for_each(copies.begin(), copies.end(), run);
  });
}

template <class Args>
void TimedRow::Loop(benchmark::State& state, const Args& args) {
  const std::vector<Args> copies = Copies(args);
  // A mutant changes its arguments on the host.
  const bool on_device = use_.row->OnDevice() && !use_.mutant;
  if (on_device && !graph_) MakeGraph(copies);
  binding_.PoisonOutputs();
  if (on_device) {
    graph_->UploadOutputs();
    while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(launches_))) {
      graph_->Replay();
      graph_->Wait();
    }
    graph_->FetchOutputs();
  } else {
    for (auto _ : state) {
      if (++next_ >= copies.size()) next_ = 0;
      RunUse(use_, copies[next_], options_.threads);
    }
  }
  const auto bytes = static_cast<double>(args.Bytes());
  const double ops = OpsOf(args);
  Roofline roofline = options_.roofline;
  const double after = options_.read_rate();
  roofline.all.bytes = (std::exchange(read_rate_, after) + after) / 2;
  const double roof = roofline.Seconds(bytes, ops, use_.row->contract);
  using benchmark::Counter;
  const auto rate = [](double value) { return Counter(value, Counter::kIsIterationInvariantRate); };
  state.counters["bytes"] = bytes;
  state.counters["GB/s"] = rate(bytes / 1e9);
  state.counters["GFLOP/s"] = rate(ops / 1e9);
  state.counters["%roof"] = rate(100 * roof);
  state.counters["read_GB/s"] = roofline.all.bytes / 1e9;
  state.counters["err/tol"] = NotZero(verdict_.worst);
}

void TimedRow::Time(benchmark::State& state) {
  if (verdict_.status == Status::fail) {
    const std::string why = fmt::format("wrong: {} at {}[t{}, {}]", verdict_.why, verdict_.output,
                                        verdict_.token, verdict_.channel);
    return state.SkipWithError(why.c_str());
  }
  binding_.With([&](const auto& args) {
    Loop(state, args);
    return true;
  });
  if (!SameBits(binding_.outputs(), judged_) || !binding_.guards_intact())
    state.SkipWithError("wrong: a timed run gave other bits than the judged one");
}

}  // namespace lab
