#include "bench/forward_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "lab/random.h"

namespace lab {
namespace {

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Two decimals, or three digits of a small value: a slow run is not 0.00.
std::string Decimals(double value) {
  return value < 1 ? fmt::format("{:.3g}", value) : fmt::format("{:.2f}", value);
}

class Timer {
 public:
  Timer(const Qwen2& model, const ForwardBench& f, const Roofline& roofline)
      : model_(model), c_(model.config), f_(f), roofline_(roofline) {}

  Table Run() {
    if (f_.prefill > 0) Prefill();
    if (f_.decode > 0) Decode();
    return std::move(table_);
  }

 private:
  Forward<float> Make(size_t capacity) const {
    return Forward<float>(model_, RowSet(f_.backend, f_.contract), DefaultKv(f_.contract),
                          roofline_.threads, capacity);
  }

  double SecondsOf(Forward<float>& forward, size_t tokens) {
    std::vector<int32_t> ids;
    for (size_t i = 0; i < tokens; ++i)
      ids.push_back(static_cast<int32_t>(random_.Below(static_cast<uint32_t>(c_.vocab))));
    const auto start = std::chrono::steady_clock::now();
    forward.Run(ids, nullptr);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  void Prefill() {
    std::vector<double> seconds;
    for (int round = 0; round < 3; ++round) {
      Forward<float> forward = Make(f_.prefill);
      seconds.push_back(SecondsOf(forward, f_.prefill));
    }
    Add("prefill", f_.prefill, 0, Median(seconds));
  }

  // Each depth goes on from where the decoding at the one before it ended.
  void Decode() {
    Forward<float> forward = Make(f_.depths.back() + f_.decode);
    for (const size_t depth : f_.depths) {
      if (depth > forward.position()) SecondsOf(forward, depth - forward.position());
      const size_t first = forward.position();
      std::vector<double> seconds;
      for (size_t i = 0; i < f_.decode; ++i) seconds.push_back(SecondsOf(forward, 1));
      Add("decode", 1, first + f_.decode / 2, Median(seconds), first);
    }
  }

  // Multiply-adds of one token in the matrices of the layers.
  double LayerWork() const {
    double work = 0;
    for (const Qwen2Layer& l : model_.layers)
      for (const WeightView* w :
           {&l.attn_q, &l.attn_k, &l.attn_v, &l.attn_output, &l.ffn_gate, &l.ffn_up, &l.ffn_down})
        work += static_cast<double>(w->rows * w->cols);
    return work;
  }

  // Weights and KV are counted once for each call, as they must at least be read.
  void Add(const char* what, size_t tokens, size_t depth, double seconds, size_t shown_depth = 0) {
    const double t = static_cast<double>(tokens), d = static_cast<double>(depth);
    const size_t kv_value = DefaultKv(f_.contract) == KvType::f16 ? 2 : 4;
    const double kv = 2.0 * static_cast<double>(c_.layers * c_.kv_dim() * kv_value) * (d + t);
    const double bytes = static_cast<double>(model_.BytesPerToken()) + kv;
    const double pairs = t * d + t * (t + 1) / 2;
    const double ops =
        2 * (t * LayerWork() + static_cast<double>(model_.output.rows * model_.output.cols)) +
        4 * pairs * static_cast<double>(c_.layers * c_.q_dim());
    const double roof = roofline_.Seconds(bytes, ops, f_.contract);
    table_.Add({what, fmt::format("{}", tokens), fmt::format("{}", shown_depth),
                Decimals(t / seconds), Decimals(1e3 * seconds), Decimals(bytes / seconds / 1e9),
                Decimals(ops / seconds / 1e9), Decimals(100 * roof / seconds)});
  }

  const Qwen2& model_;
  const Qwen2Config& c_;
  const ForwardBench& f_;
  const Roofline& roofline_;
  Random random_{1};
  Table table_{{"run", "tokens", "depth", "tok/s", "ms", "GB/s", "GFLOP/s", "%roof"}};
};

}  // namespace

Table TimeForward(const Qwen2& model, const ForwardBench& f, const Roofline& roofline) {
  return Timer(model, f, roofline).Run();
}

}  // namespace lab
