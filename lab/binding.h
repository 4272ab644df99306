#pragma once
// Ties a case to the argument struct of its op: guarded buffers, filled inputs, poisoned outputs.
#include <cstring>
#include <deque>
#include <limits>
#include <string>
#include <vector>

#include "lab/case.h"
#include "lab/mutants.h"

namespace lab {

/// Memory between guards. Inputs are followed by NaN (weights by 0xff bytes), so that what a kernel
/// reads behind the end spoils its result; outputs start as NaN, so that what it does not write
/// shows, and guard words on both sides tell whether it wrote beside them.
template <class T>
class GuardedBuffer {
 public:
  GuardedBuffer(std::string name, size_t tokens, size_t n)
      : name_(std::move(name)), tokens_(tokens), n_(n), memory_(2 * kGuard + tokens * n, Guard()) {
    if constexpr (std::numeric_limits<T>::has_quiet_NaN)
      std::fill_n(data(), size(), std::numeric_limits<T>::quiet_NaN());
  }
  const std::string& name() const { return name_; }
  size_t tokens() const { return tokens_; }
  size_t n() const { return n_; }
  size_t size() const { return tokens_ * n_; }
  T* data() { return memory_.data() + kGuard; }
  const T* data() const { return memory_.data() + kGuard; }
  bool guards_intact() const {
    const T guard = Guard();
    for (size_t i = 0; i < kGuard; ++i)
      if (std::memcmp(&memory_[i], &guard, sizeof guard) != 0 ||
          std::memcmp(&memory_[memory_.size() - 1 - i], &guard, sizeof guard) != 0)
        return false;
    return true;
  }

 private:
  static constexpr size_t kGuard = 64;
  static T Guard() { return static_cast<T>(-77.25); }
  std::string name_;
  size_t tokens_, n_;
  std::vector<T> memory_;
};

/// The integers of a case's x under a contract, made once by the reference quantiser, so that
/// oracle and kernels start from the same; empty under f32 and for float weights.
QuantizedBuffer QuantizeCase(const Case& c, Contract contract, const WeightView& w);

/// One run's worth of buffers. T as in kernels.def: double for the oracle.
template <class T>
class Binding {
 public:
  Binding(const Case& c, Contract contract, bool half_kv);

  /// Runs a row on the case; its op must be the case's. Whether its mutant, if any, made a
  /// difference.
  bool Run(const RowUse& use, int threads);

  /// What the row wrote, by name ("y", or "gate" and "up", or "q", "scale", "sums").
  const std::deque<GuardedBuffer<T>>& outputs() const { return outputs_; }
  bool guards_intact() const;

  Binding(const Binding&) = delete;
  Binding& operator=(const Binding&) = delete;

 private:
  const T* Input(const std::vector<float>& values);
  const float* Floats(const std::vector<float>& values);
  WeightView Weight(const WeightView& w);
  T* Output(const char* name, size_t tokens, size_t n);
  bool RunQuantize(const RowUse& use, int threads);
  bool RunAttention(const RowUse& use, int threads);
  bool RunRope(const RowUse& use, int threads);

  const Case& c_;
  Contract contract_;
  bool half_kv_;
  std::deque<std::vector<T>> inputs_;
  std::deque<std::vector<float>> floats_;
  std::deque<std::vector<uint8_t>> weights_;
  std::deque<std::vector<uint16_t>> halves_;
  std::deque<QuantizedBuffer> integers_;
  std::deque<GuardedBuffer<T>> outputs_;
  bool integer_guards_intact_ = true;
};

extern template class Binding<float>;
extern template class Binding<double>;

}  // namespace lab
