// lab bench: every kernel row on the shapes and weights of one model layer, timed by Google
// Benchmark.
#include <benchmark/benchmark.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <memory>

#include "lab/cli.h"
#include "lab/error.h"
#include "lab/names.h"
#include "lab/output.h"
#include "lab/parallel.h"
#include "lab/registry.h"
#include "model/qwen2.h"

namespace lab {
namespace {

constexpr size_t kPosition = 511;  // attention reads 512 positions

template <class T>
std::vector<T> Wave(size_t n) {
  std::vector<T> values(n);
  for (size_t i = 0; i < n; ++i)
    values[i] = static_cast<T>(std::sin(0.37 * static_cast<double>(i)));
  return values;
}

const Qwen2Layer& LayerOf(const Qwen2& model) {
  return model.layers[std::min<size_t>(3, model.layers.size() - 1)];
}

// Inputs and outputs of every op for one token of one layer.
template <class T>
struct Buffers {
  const Qwen2& model;
  std::vector<T> x, y, z, k, v;
  int32_t id = 0;
  QuantizedBuffer integers;

  explicit Buffers(const Qwen2& m)
      : model(m),
        x(Wave<T>(m.config.ffn)),
        y(m.config.ffn),
        z(m.config.ffn),
        k(Wave<T>((kPosition + 1) * m.config.kv_dim())),
        v(k) {}

  // x as the integers that a row under q8 or q16 reads with these weights.
  QuantizedView Integers(const Row& row, const WeightView& w) {
    const size_t block = ActivationBlock(w.type);
    if (row.contract == Contract::f32 || block == 0) return {};
    const auto args = integers.Prepare(x.data(), 1, w.cols, block, row.contract == Contract::q16);
    const Backend backend = sizeof(T) == sizeof(double) ? Backend::oracle : Backend::ref;
    RunRow(*FindRow(Op::quantize, row.contract, backend), args, 1);
    return integers.view();
  }
};

// The weights that a dequantisation row is timed on: the first matrix of its type.
const WeightView* FindMatrix(const Qwen2& model, BlockType type) {
  for (const Qwen2Layer& l : model.layers)
    for (const WeightView* w : {&l.ffn_down, &l.ffn_gate, &l.attn_v})
      if (w->type == type) return w;
  return nullptr;
}

template <class Args>
void Time(benchmark::State& state, const Row& row, const Args& args, int threads, uint64_t bytes) {
  for (auto _ : state) RunRow(row, args, threads);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * bytes));
}

template <class T>
void TimeDequant(benchmark::State& state, const Row& row, const Qwen2& model, int threads,
                 BlockType type) {
  const WeightView* w = FindMatrix(model, type);
  if (!w) return state.SkipWithError("the model has no such matrix");
  std::vector<T> out(w->rows * w->cols);
  Time(state, row, DequantArgs<T>{*w, out.data()}, threads, w->bytes());
}

// Bytes are those of the weights as stored, or of the vectors read and written.
template <class T>
void TimeRow(benchmark::State& state, const Row& row, const Qwen2& model, int threads) {
  Buffers<T> b(model);
  const Qwen2Config& c = model.config;
  const Qwen2Layer& l = LayerOf(model);
  const size_t value = sizeof(T);
  switch (row.op) {
    case Op::q4k_dequant:
      return TimeDequant<T>(state, row, model, threads, BlockType::Q4_K);
    case Op::q6k_dequant:
      return TimeDequant<T>(state, row, model, threads, BlockType::Q6_K);
    case Op::embed:
      return Time(state, row, EmbedArgs<T>{model.token_embd, &b.id, b.y.data(), 1}, threads,
                  model.token_embd.row_bytes());
    case Op::rms_norm:
      return Time(
          state, row,
          RmsNormArgs<T>{b.x.data(), l.attn_norm.data(), b.y.data(), 1, c.hidden, c.rms_eps},
          threads, 2 * c.hidden * value);
    case Op::matvec:
      return Time(state, row,
                  MatvecArgs<T>{l.attn_q, l.q_bias.data(), b.x.data(), b.Integers(row, l.attn_q),
                                b.y.data(), nullptr, 1, c.q_dim()},
                  threads, l.attn_q.bytes());
    case Op::down_proj:
      return Time(state, row,
                  MatvecArgs<T>{l.ffn_down, nullptr, b.x.data(), b.Integers(row, l.ffn_down),
                                b.y.data(), nullptr, 1, c.hidden},
                  threads, l.ffn_down.bytes());
    case Op::quantize:
      return Time(state, row,
                  b.integers.Prepare(b.x.data(), 1, c.hidden, 256, row.contract == Contract::q16),
                  threads, c.hidden * value);
    case Op::gate_up:
      return Time(state, row,
                  GateUpArgs<T>{l.ffn_gate, l.ffn_up, b.x.data(), b.Integers(row, l.ffn_gate),
                                b.Integers(row, l.ffn_up), b.y.data(), b.z.data(), 1, c.ffn},
                  threads, l.ffn_gate.bytes() + l.ffn_up.bytes());
    case Op::gate_up_swiglu:
      return Time(
          state, row,
          GateUpSwigluArgs<T>{{l.ffn_gate, l.ffn_up, b.x.data(), b.Integers(row, l.ffn_gate),
                               b.Integers(row, l.ffn_up), nullptr, nullptr, 1, c.ffn},
                              nullptr,
                              b.z.data()},
          threads, l.ffn_gate.bytes() + l.ffn_up.bytes());
    case Op::rope:
      return Time(state, row,
                  RopeArgs<T>{b.x.data(), b.y.data(), b.k.data(), b.v.data(), 1, c.heads,
                              c.head_dim, c.q_dim()},
                  threads, 2 * c.q_dim() * value);
    case Op::gqa_attention:
      return Time(state, row,
                  GqaAttentionArgs<T>{b.x.data(), b.k.data(), b.v.data(), nullptr, nullptr,
                                      b.y.data(), 1, kPosition, c.heads, c.heads / c.kv_heads,
                                      c.head_dim, 0, c.q_dim(), c.kv_dim(), c.q_dim()},
                  threads, 2 * b.k.size() * value);
    case Op::residual_add:
      return Time(state, row, ResidualAddArgs<T>{b.x.data(), b.y.data(), b.z.data(), c.hidden},
                  threads, 3 * c.hidden * value);
    case Op::silu:
      return Time(state, row, SiluArgs<T>{b.x.data(), b.y.data(), c.ffn}, threads,
                  2 * c.ffn * value);
    case Op::swiglu:
      return Time(state, row, SwigluArgs<T>{b.x.data(), b.y.data(), b.z.data(), c.ffn}, threads,
                  3 * c.ffn * value);
  }
}

// Google Benchmark writes through std::cout, which forgets why a write failed.
[[noreturn]] void ThrowStdoutError() {
  pollfd out = {STDOUT_FILENO, POLLOUT, 0};
  if (poll(&out, 1, 0) == 1 && (out.revents & POLLERR)) throw Error(kClosedPipe, "");
  Fail("standard output: cannot write");
}

}  // namespace

int CmdBench(int argc, char** argv) {
  const auto is_help = [](std::string_view arg) { return arg == "--help" || arg == "-h"; };
  if (std::none_of(argv, argv + argc, is_help))
    benchmark::Initialize(&argc, argv);  // takes the --benchmark_* flags out of argv
  std::string model_name, backend = "ref";
  int threads = DefaultThreads();
  CLI::App app(
      "Times every kernel row of a backend on one token and one layer of a model. Google "
      "Benchmark's flags\n"
      "(--benchmark_filter=, --benchmark_format=json, ...) work too. Nothing is judged here.",
      "lab bench");
  AddModel(app, model_name);
  app.add_option("--backend", backend, "ref (default), hwy or oracle");
  app.add_option("--threads", threads, "1 to 1024 (default: the cores of this machine)");
  app.footer("Example:\n  lab bench --benchmark_filter=gate_up");
  if (!ParseArgs(app, argc, argv)) return kPass;
  const Backend wanted = ParseBackend(backend, "--backend");
  CheckThreads(threads);

  const Qwen2 model = OpenModel(ResolveModel(model_name));
  size_t registered = 0;
  for (const Row& row : Rows()) {
    if (row.backend != wanted || !row.run) continue;
    const std::string name =
        fmt::format("{}/{}/{}", NameOf(row.op), NameOf(row.contract), NameOf(row.backend));
    const auto time = wanted == Backend::oracle ? TimeRow<double> : TimeRow<float>;
    benchmark::RegisterBenchmark(name.c_str(),
                                 [&row, &model, threads, time](benchmark::State& state) {
                                   time(state, row, model, threads);
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
    ++registered;
  }
  if (registered == 0)
    throw Error(kNotComparable, fmt::format("--backend {}: no row of it is built", backend));
  const size_t run = benchmark::RunSpecifiedBenchmarks();
  std::cout.flush();
  if (!std::cout) ThrowStdoutError();
  if (run == 0) throw Error(kNotComparable, "--benchmark_filter selects no row");
  return kPass;
}

}  // namespace lab
