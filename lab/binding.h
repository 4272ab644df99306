#pragma once
// Ties a case to the argument struct of its op: guarded buffers, filled inputs, poisoned outputs.
#include <algorithm>
#include <cstring>
#include <deque>
#include <limits>
#include <new>
#include <string>
#include <vector>

#include "lab/case.h"
#include "lab/mutants.h"

namespace lab {

/// A vector whose memory begins at a multiple of 64 bytes, so that what lies in it can be placed
/// *off* every alignment that a kernel might take for granted.
template <class T>
struct Aligned64 {
  using value_type = T;
  Aligned64() = default;
  template <class U>
  Aligned64(const Aligned64<U>&) {}
  T* allocate(size_t n) {
    return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64}));
  }
  void deallocate(T* p, size_t) { ::operator delete (p, std::align_val_t{64}); }
  bool operator==(const Aligned64&) const = default;
};
template <class T>
using AlignedVector = std::vector<T, Aligned64<T>>;

/// Memory between guards. Outputs start as NaN, so that what a kernel does not write shows, and
/// guard words on both sides tell whether it wrote beside them. The first value lies one value past
/// a multiple of 64 bytes: an aligned store faults.
template <class T>
class GuardedBuffer {
 public:
  GuardedBuffer(std::string name, size_t tokens, size_t n)
      : name_(std::move(name)),
        tokens_(tokens),
        n_(n),
        memory_(kBefore + tokens * n + kBehind, Guard()) {
    if constexpr (std::numeric_limits<T>::has_quiet_NaN)
      std::fill_n(data(), size(), std::numeric_limits<T>::quiet_NaN());
  }
  const std::string& name() const { return name_; }
  size_t tokens() const { return tokens_; }
  size_t n() const { return n_; }
  size_t size() const { return tokens_ * n_; }
  T* data() { return memory_.data() + kBefore; }
  const T* data() const { return memory_.data() + kBefore; }
  bool guards_intact() const {
    const T guard = Guard();
    const auto intact = [&](const T& word) { return std::memcmp(&word, &guard, sizeof word) == 0; };
    const T* end = data() + size();
    return std::all_of(memory_.data(), data(), intact) && std::all_of(end, end + kBehind, intact);
  }

 private:
  static constexpr size_t kBefore = 64 + 1, kBehind = 256;
  static T Guard() { return static_cast<T>(-77.25); }
  std::string name_;
  size_t tokens_, n_;
  AlignedVector<T> memory_;
};

/// The integers of a case's x under a contract, made once by the reference quantiser, so that
/// oracle and kernels start from the same; empty under f32 and for float weights.
QuantizedBuffer QuantizeCase(const Case& c, Contract contract, const WeightView& w);

/// One run's worth of buffers. T as in kernels.def: double for the oracle. Inputs lie between NaNs
/// (weights between 0xff bytes), at least a block of them, so that what a kernel reads behind the
/// end spoils its result; and off every alignment but that of their type, so that an aligned load
/// faults.
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
  QuantizedView Integers(const WeightView& w);
  T* Output(const char* name, size_t tokens, size_t n);
  GateUpArgs<T> GateUp();
  bool RunQuantize(const RowUse& use, int threads);
  bool RunAttention(const RowUse& use, int threads);
  bool RunRope(const RowUse& use, int threads);

  const Case& c_;
  Contract contract_;
  bool half_kv_;
  std::deque<AlignedVector<T>> inputs_;
  std::deque<AlignedVector<float>> floats_;
  std::deque<AlignedVector<uint8_t>> weights_;
  std::deque<AlignedVector<uint16_t>> halves_;
  std::deque<AlignedVector<int8_t>> planes_;
  std::deque<AlignedVector<int32_t>> sums_;
  std::deque<GuardedBuffer<T>> outputs_;
  bool integer_guards_intact_ = true;
};

extern template class Binding<float>;
extern template class Binding<double>;

}  // namespace lab
