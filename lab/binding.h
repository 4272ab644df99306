#pragma once
// Ties a case to the argument struct of its op: guarded buffers, filled inputs, poisoned outputs.
#include <algorithm>
#include <cstring>
#include <deque>
#include <limits>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lab/aligned.h"
#include "lab/case.h"
#include "lab/mutants.h"

namespace lab {

/// Where buffers begin. off: one value past a multiple of 64 bytes (weights: two or four bytes), so
/// that an aligned access faults. on: at such a multiple, as a runtime that is timed has them.
enum class Alignment { off, on };

/// Memory between guards. Outputs start as NaN, so that what a kernel does not write shows, and
/// guard words on both sides tell whether it wrote beside them.
template <class T>
class GuardedBuffer {
 public:
  GuardedBuffer(std::string name, size_t tokens, size_t n, Alignment alignment = Alignment::off)
      : name_(std::move(name)),
        tokens_(tokens),
        n_(n),
        before_(alignment == Alignment::on ? 64 : 64 + 1),
        memory_(before_ + tokens * n + kBehind, Guard()) {
    Poison();
  }
  /// As if nothing had been written.
  void Poison() {
    constexpr bool kHasNaN = std::numeric_limits<T>::has_quiet_NaN;
    std::fill_n(data(), size(), kHasNaN ? std::numeric_limits<T>::quiet_NaN() : Guard());
  }
  const std::string& name() const { return name_; }
  size_t tokens() const { return tokens_; }
  size_t n() const { return n_; }
  size_t size() const { return tokens_ * n_; }
  T* data() { return memory_.data() + before_; }
  const T* data() const { return memory_.data() + before_; }
  bool guards_intact() const {
    const T guard = Guard();
    const auto intact = [&](const T& word) { return std::memcmp(&word, &guard, sizeof word) == 0; };
    const T* end = data() + size();
    return std::all_of(memory_.data(), data(), intact) && std::all_of(end, end + kBehind, intact);
  }

 private:
  static constexpr size_t kBehind = 256;
  static T Guard() { return static_cast<T>(-77.25); }
  std::string name_;
  size_t tokens_, n_, before_;
  AlignedVector<T> memory_;
};

/// The integers of a case's x under a contract, made once by the reference quantiser, so that
/// oracle and kernels start from the same; empty under f32 and for float weights.
QuantizedBuffer QuantizeCase(const Case& c, Contract contract, const WeightView& w);

/// The arguments of any op.
template <class T>
using AnyArgs = std::variant<DequantArgs<T>, EmbedArgs<T>, RmsNormArgs<T>, QuantizeArgs<T>,
                             MatvecArgs<T>, RopeArgs<T>, GqaAttentionArgs<T>, ResidualAddArgs<T>,
                             GateUpArgs<T>, GateUpSwigluArgs<T>, SiluArgs<T>, SwigluArgs<T>>;

/// The buffers of a case and the arguments that point into them. T as in kernels.def: double for
/// the oracle. Inputs lie between NaNs (weights between 0xff bytes), at least a block of them, so
/// that what a kernel reads behind the end spoils its result. `c` must outlive it.
template <class T>
class Binding {
 public:
  Binding(const Case& c, Contract contract, bool half_kv, Alignment alignment = Alignment::off);

  /// Runs a row on the case; its op must be the case's. Whether its mutant, if any, made a
  /// difference.
  bool Run(const RowUse& use, int threads) {
    return With([&](const auto& args) { return RunUse(use, args, threads); });
  }

  /// use(args) with the arguments of the case's op; then outputs() are what use has made of them.
  template <class F>
  auto With(F&& use) {
    const auto result = std::visit(std::forward<F>(use), args_);
    CollectIntegers();
    return result;
  }

  /// What the row wrote, by name ("y", or "gate" and "up", or "q", "scale", "sums").
  const std::deque<GuardedBuffer<T>>& outputs() const { return outputs_; }
  bool guards_intact() const;
  /// Makes all outputs what they were before the first run.
  void PoisonOutputs();

  Binding(const Binding&) = delete;
  Binding& operator=(const Binding&) = delete;

 private:
  /// What op quantize writes.
  struct IntegerOutputs {
    GuardedBuffer<int8_t> hi, lo;
    GuardedBuffer<float> scale;
    GuardedBuffer<int32_t> sums;
  };

  AnyArgs<T> MakeArgs();
  template <class To>
  const To* Padded(std::deque<AlignedVector<To>>& pool, const To* values, size_t n, To padding,
                   size_t past = 1);
  const T* Input(const std::vector<float>& values);
  const float* Floats(const std::vector<float>& values);
  WeightView Weight(const WeightView& w);
  QuantizedView Integers(const WeightView& w);
  T* Output(const char* name, size_t tokens, size_t n);
  GateUpArgs<T> MakeGateUp();
  QuantizeArgs<T> MakeQuantize();
  GqaAttentionArgs<T> MakeAttention();
  RopeArgs<T> MakeRope();
  void CollectIntegers();

  const Case& c_;
  Contract contract_;
  bool half_kv_;
  Alignment alignment_;
  std::deque<AlignedVector<T>> inputs_;
  std::deque<AlignedVector<float>> floats_;
  std::deque<AlignedVector<uint8_t>> weights_;
  std::deque<AlignedVector<uint16_t>> halves_;
  std::deque<AlignedVector<int8_t>> planes_;
  std::deque<AlignedVector<int32_t>> sums_;
  std::deque<GuardedBuffer<T>> outputs_;
  std::optional<IntegerOutputs> integers_;
  AnyArgs<T> args_;  // behind the buffers it points into
};

extern template class Binding<float>;
extern template class Binding<double>;

}  // namespace lab
