// lab bench: kernel rows timed on cases, whole passes, and the roof over both.
#include <benchmark/benchmark.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <limits>
#include <memory>

#include "bench/forward_bench.h"
#include "bench/layer_cases.h"
#include "bench/machine.h"
#include "bench/reporter.h"
#include "bench/timed_row.h"
#include "lab/cli.h"
#include "lab/device.h"
#include "lab/error.h"
#include "lab/names.h"
#include "lab/output.h"
#include "lab/parallel.h"
#include "lab/select.h"
#include "lab/simd_target.h"
#include "model/repack.h"

namespace lab {
namespace {

// Weights of a large cache's rotation must still leave room for the matrices themselves.
constexpr size_t kMostCold = size_t{1} << 30;

struct Flags : RowFlags {
  std::string model, folder, target, format, baseline, slowdown = "5%";
  std::string backend = "hwy";
  std::vector<std::string> use;
  size_t layer = 3, tokens = 1, depth = 511;
  int threads = DefaultThreads();
  bool warm = false, roofline = false, forward = false;
  ForwardBench passes;
};

void AddCaseFlags(CLI::App& app, Flags& f) {
  AddRowFlags(app, f);
  app.add_option("--backend", f.backend, "the rows of this backend: hwy (default), ref, cuda")
      ->type_name("ref|hwy|cuda");
  app.add_option("--cases", f.folder, "the case files of this folder instead of a model's layer")
      ->type_name("DIR");
  app.add_option("--target", f.target, "this SIMD target (default: the best that runs here)");
  app.add_option("--layer", f.layer, "which layer's matrices (default 3)")
      ->type_name("L")
      ->check(NotNegative);
  app.add_option("--tokens", f.tokens, "tokens at once: 1 is decoding (default), 512 prefill")
      ->type_name("N")
      ->check(NotNegative);
  app.add_option("--depth", f.depth, "positions before them, for attention (default 511)")
      ->type_name("D")
      ->check(NotNegative);
  app.add_option("--use", f.use, "run an op under a mutant, to see it refused: silu=mutant:gelu")
      ->type_name("OP=mutant:NAME")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--warm", f.warm, "one copy of the weights, in the cache where it fits");
}

bool ParseFlags(int argc, char** argv, Flags& f) {
  CLI::App app(
      "Times kernel rows on the matrices of a model's layer, each judged before and after. Weights "
      "come from\n"
      "memory, not from the cache. Google Benchmark's flags (--benchmark_filter=, "
      "--benchmark_out=, ...) work too.",
      "lab bench");
  AddModel(app, f.model);
  AddCaseFlags(app, f);
  AddThreads(app, f.threads);
  app.add_flag("--roofline", f.roofline, "only what this machine can do: bandwidth and peak rates");
  auto* forward = app.add_flag("--forward", f.forward, "whole passes: prefill and decoding");
  app.add_option("--prefill", f.passes.prefill, "with --forward: tokens (default 512; 0: none)")
      ->type_name("N")
      ->check(NotNegative)
      ->needs(forward);
  app.add_option("--decode", f.passes.decode, "with --forward: tokens (default 64; 0: none)")
      ->type_name("N")
      ->check(NotNegative)
      ->needs(forward);
  app.add_option("--depths", f.passes.depths, "with --forward: where to decode (0,1024,4096)")
      ->type_name("D,...")
      ->delimiter(',')
      ->check(NotNegative)
      ->needs(forward);
  auto* baseline =
      app.add_option("--baseline", f.baseline, "compare with an earlier --benchmark_out=FILE")
          ->type_name("FILE");
  app.add_option("--max-slowdown", f.slowdown, "exit 5 beyond it (default 5%)")->needs(baseline);
  AddTableFormat(app, f.format);
  app.footer(
      "Example:\n  lab bench --op gate_up --contract q8\n"
      "  lab bench --tokens 512 --benchmark_out=new.json\n"
      "  lab bench --baseline old.json --max-slowdown 5%\n"
      "  lab bench --roofline\n  lab bench --forward --contract q8");
  return ParseArgs(app, argc, argv);
}

void CheckFlags(Flags& f) {
  CheckThreads(f.threads);
  ParseSlowdown(f.slowdown);
  ParseTableFormat(f.format);
  if (f.tokens < 1 || f.tokens > 4096) Fail("--tokens: {} is outside 1 to 4096", f.tokens);
  if (f.depth > 1 << 17) Fail("--depth: {} is more than {}", f.depth, 1 << 17);
  std::sort(f.passes.depths.begin(), f.passes.depths.end());
  UseSimdTarget(f.target);
  if (ParseBackend(f.backend, "--backend") == Backend::cuda_host)
    Fail("--backend cuda-host: a CPU in the place of a GPU is not timed");
}

void WarnOfLoad() {
  const double load = LoadAverage();
  if (load > 0.5 * DefaultThreads())
    PrintErr(fmt::format("lab: load average {:.2f} on {} cores: times will be too long\n", load,
                         DefaultThreads()));
}

// The roof is the machine's, whatever target the rows are sent to.
template <class F>
auto OnTheBestTarget(const Flags& f, F&& measure) {
  UseSimdTarget("");
  const auto measured = measure();
  UseSimdTarget(f.target);
  return measured;
}

Roofline MeasureMachine(const Flags& f) {
  WarnOfLoad();
  return OnTheBestTarget(f, [&] { return MeasureRoofline(f.threads); });
}

void WarnOfAnotherRoof(const Roofline& before, const Flags& f) {
  const double after = OnTheBestTarget(f, [&] { return MeasureReadRate(before); });
  const std::string why = AnotherRoof(before, after);
  if (!why.empty()) PrintErr("lab: " + why + "\n");
}

// Of a device the bandwidth alone: what a copy within its memory reads and writes.
Roofline MeasureDevice() {
  constexpr double kNoLimit = std::numeric_limits<double>::infinity();
  Roofline roofline;
  roofline.all = {DeviceCopyRate(), kNoLimit, kNoLimit};
  return roofline;
}

int ReportRoofline(const Flags& f) {
  const Roofline r = MeasureMachine(f);
  const Format format = ParseTableFormat(f.format);
  if (format == Format::text)
    PrintOut(fmt::format("{}, {}; read over {} MB in pages: {}\n", CpuModel(), r.target,
                         r.buffer_bytes >> 20, r.pages));
  PrintOut(RooflineTable(r).To(format));
  return kPass;
}

int BenchForward(Flags& f) {
  ForwardBench& passes = f.passes;
  passes.backend = ParseBackend(f.backend, "--backend");
  if (!f.contract.empty()) passes.contract = ParseContract(f.contract, "--contract");
  if (passes.backend == Backend::oracle) Fail("--backend oracle: only rows in float32 are timed");
  Qwen2 model = OpenModel(ResolveModel(f.model));
  const size_t most = std::max(passes.prefill, passes.depths.back() + passes.decode);
  if (most > model.config.context_length)
    Fail("--depths, --prefill: {} positions are more than the context of {}", most,
         model.config.context_length);
  if (RowSet(passes.backend, passes.contract).ReadsRows8()) Repack(model, f.threads);
  const bool on_device = passes.backend == Backend::cuda;
  const Roofline roofline = on_device ? MeasureDevice() : MeasureMachine(f);
  const Format format = ParseTableFormat(f.format);
  if (format == Format::text)
    PrintOut(fmt::format("{}, contract {}, KV {}\n",
                         on_device ? fmt::format("{}, copies {:.0f} GB/s", Cuda().devices[0].name,
                                                 roofline.all.bytes / 1e9)
                                   : fmt::format("{}, {} threads, {}", CpuModel(), f.threads,
                                                 CurrentSimdTarget().name),
                         NameOf(passes.contract), NameOf(DefaultKv(passes.contract))));
  PrintOut(TimeForward(model, passes, roofline).To(format));
  if (!on_device) WarnOfAnotherRoof(roofline, f);
  return kPass;
}

// Google Benchmark writes through std::cout, which forgets why a write failed.
[[noreturn]] void ThrowStdoutError() {
  pollfd out = {STDOUT_FILENO, POLLOUT, 0};
  if (poll(&out, 1, 0) == 1 && (out.revents & POLLERR)) throw Error(kClosedPipe, "");
  Fail("standard output: cannot write");
}

// Every row on every case of its op.
class RowBench {
 public:
  explicit RowBench(const Flags& f)
      : f_(f),
        rules_(ParseMutantUse(f.use)),
        rows_(SelectRows(f.ops, f.backend, f.contract)),
        target_(CurrentSimdTarget()) {
    std::erase_if(rows_, [](const Row* row) { return !WhyNotHere(*row).empty(); });
    LoadCases();
  }

  int Run() {
    size_t registered = 0;
    for (const Case& c : cases_)
      for (const Row* row : rows_)
        if (row->op == c.op) registered += Register(c, *row);
    if (registered == 0)
      throw Error(kNotComparable, "no row of these has a case; see --op, --case and --backend");
    MeasureRoofs();
    AddContext();
    MedianReporter reporter;
    const size_t run = benchmark::RunSpecifiedBenchmarks(&reporter);
    timed_.reset();
    std::cout.flush();
    if (!std::cout) ThrowStdoutError();
    if (run == 0) throw Error(kNotComparable, "--benchmark_filter selects no row");
    int code = kPass;
    if (!f_.baseline.empty())
      code = CompareWithBaseline(reporter.medians(), before_, ParseSlowdown(f_.slowdown));
    return reporter.failed() ? kNumericFailure : code;
  }

 private:
  void LoadCases() {
    if (!f_.baseline.empty()) before_ = ReadMedians(f_.baseline);
    if (!f_.folder.empty()) {
      if (!f_.model.empty()) Fail("--cases and --model: the cases come from one of the two");
      cases_ = ReadCases(f_.folder);
    } else {
      model_.emplace(OpenModel(ResolveModel(f_.model)));
      if (f_.layer >= model_->config.layers)
        Fail("--layer {}: the model has layers 0 to {}", f_.layer, model_->config.layers - 1);
      cases_ = LayerCases(*model_, f_.layer, f_.tokens, f_.depth);
    }
    ChooseCases(cases_, f_.cases, "--case");
  }

  size_t Register(const Case& c, const Row& row) {
    RegisterOne(c, row, false);
    if (row.op != Op::gqa_attention) return 1;
    RegisterOne(c, row, true);
    return 2;
  }

  void MeasureRoofs() {
    const auto cold = [&](size_t cache) { return f_.warm ? 0 : std::min(2 * cache, kMostCold); };
    const auto is_on_device = [](const Row* row) { return row->OnDevice(); };
    if (!std::all_of(rows_.begin(), rows_.end(), is_on_device)) {
      host_.emplace();
      host_->threads = f_.threads;
      host_->cold_bytes = cold(LastLevelCache());
      host_->roofline = MeasureMachine(f_);
      host_->read_rate = [this, probe = std::make_shared<ReadProbe>(f_.threads)] {
        return OnTheBestTarget(f_, [&] { return probe->Rate(); });
      };
    }
    if (std::any_of(rows_.begin(), rows_.end(), is_on_device)) {
      device_.emplace();
      device_->cold_bytes = cold(Cuda().devices[0].cache);
      device_->roofline = MeasureDevice();
      device_->read_rate = DeviceCopyRate;
    }
  }

  void RegisterOne(const Case& c, const Row& row, bool half_kv) {
    const RowUse use = UseOf(row, rules_);
    const bool simd = row.backend == Backend::hwy;
    const std::string kv = row.op != Op::gqa_attention ? "" : half_kv ? "/kv:f16" : "/kv:f32";
    const std::string name =
        fmt::format("{}/{}/{}/{}/{}/{}/tokens:{}/threads:{}{}{}", NameOf(row.op), c.name,
                    NameOf(row.contract), NameOf(row.backend), NameOf(use),
                    simd ? target_.name : "-", c.tokens, f_.threads, kv, f_.warm ? "/warm" : "");
    const size_t lanes = LanesOf(row);
    benchmark::RegisterBenchmark(name.c_str(),
                                 [this, &c, use, half_kv, lanes, name](benchmark::State& state) {
                                   // Called several times in a row for one benchmark; what it needs
                                   // is made and judged once.
                                   if (!timed_ || timed_name_ != name) {
                                     timed_.reset();
                                     timed_ = std::make_unique<TimedRow>(
                                         c, use, half_kv, lanes,
                                         use.row->OnDevice() ? *device_ : *host_);
                                     timed_name_ = name;
                                   }
                                   timed_->Time(state);
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  }

  void AddContext() const {
    const auto add = [](const char* key, const std::string& value) {
      benchmark::AddCustomContext(key, value);
    };
    add("cpu", CpuModel());
    add("simd_target", target_.name);
    add("threads", fmt::format("{}", f_.threads));
    add("model", model_ ? model_->name() : "-");
    const auto weights = [&](const TimingOptions& options) {
      return f_.warm ? "warm: one copy"
                     : fmt::format("cold: copies of {} MB", options.cold_bytes >> 20);
    };
    if (host_) {
      const Peaks& roof = host_->roofline.all;
      add("weights", weights(*host_));
      add("huge_pages", fmt::format("{} (asked for by madvise)", HugePagePolicy()));
      add("roof_read_gb_s", fmt::format("{:.1f}", roof.bytes / 1e9));
      add("roof_f32_gflop_s", fmt::format("{:.1f}", roof.f32_ops / 1e9));
      add("roof_int8_gop_s", fmt::format("{:.1f}", roof.int8_ops / 1e9));
    }
    if (device_) {
      add("device", Cuda().devices[0].name);
      add("weights_on_device", weights(*device_));
      add("roof_device_copy_gb_s", fmt::format("{:.1f}", device_->roofline.all.bytes / 1e9));
    }
  }

  const Flags& f_;
  std::vector<UseRule> rules_;
  std::vector<const Row*> rows_;
  SimdTarget target_;
  Medians before_;
  std::optional<Qwen2> model_;
  std::vector<Case> cases_;
  std::optional<TimingOptions> host_, device_;  // what rows need of the two
  std::unique_ptr<TimedRow> timed_;
  std::string timed_name_;
};

// Takes the --benchmark_* flags out of args; five repetitions unless they say otherwise.
void InitializeBenchmark(std::vector<char*>& args) {
  static char repetitions[] = "--benchmark_repetitions=5";
  static char aggregates[] = "--benchmark_report_aggregates_only=true";
  const auto is_help = [](std::string_view arg) { return arg == "--help" || arg == "-h"; };
  if (std::any_of(args.begin(), args.end(), is_help)) return;
  // Google Benchmark would find out late, and exit with 1.
  constexpr std::string_view kOut = "--benchmark_out=";
  for (const std::string_view arg : args)
    if (arg.starts_with(kOut)) const OutputFile probe(std::string(arg.substr(kOut.size())));
  args.insert(args.begin() + 1, {repetitions, aggregates});
  auto argc = static_cast<int>(args.size());
  benchmark::Initialize(&argc, args.data());
  args.resize(static_cast<size_t>(argc));
}

}  // namespace

int CmdBench(int argc, char** argv) {
  std::vector<char*> args(argv, argv + argc);
  InitializeBenchmark(args);
  Flags f;
  if (!ParseFlags(static_cast<int>(args.size()), args.data(), f)) return kPass;
  CheckFlags(f);
  if (f.roofline) return ReportRoofline(f);
  if (f.forward) return BenchForward(f);
  if (ParseTableFormat(f.format) != Format::text)
    Fail(
        "--format {}: rows are printed by Google Benchmark; give --benchmark_format=json or "
        "--benchmark_out=FILE",
        f.format);
  return RowBench(f).Run();
}

}  // namespace lab
