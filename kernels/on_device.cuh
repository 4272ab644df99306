#pragma once
// How a row runs a kernel on arguments that lie on the host: copy in, launch, copy out.
//
// Every op is split in two: a launcher, void LaunchSilu(const SiluArgs<float>& a, cudaStream_t),
// whose arguments point to device memory, which is what a pass on the device calls; and the row,
// void SiluCuda(const SiluArgs<float>& a) { RunOnDevice(a, LaunchSilu); }.
#include <memory>
#include <vector>

#include "kernels/cuda.cuh"
#include "kernels/dequant.h"
#include "kernels/device_weights.h"
#include "kernels/embed.h"
#include "kernels/gate_up_swiglu.h"
#include "kernels/gqa_attention.h"
#include "kernels/joined_steps.cuh"
#include "kernels/kv_store.h"
#include "kernels/matvec.h"
#include "kernels/quantize.h"
#include "kernels/residual_add.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/silu.h"
#include "kernels/swiglu.h"
#include "kernels/tap_sums.h"

namespace lab::LAB_CUDA_NAMESPACE {

/// Device memory that goes with its owner, aligned to 256 bytes, not initialised. Nothing is put
/// around it: compute-sanitizer on a GPU and the SIMT layer see what leaves it.
class DeviceBuffer {
 public:
  explicit DeviceBuffer(size_t bytes) {
    void* p = nullptr;
    const cudaError_t status = cudaMalloc(&p, bytes);
    size_t free = 0, total = 0;
    if (status == cudaErrorMemoryAllocation && cudaMemGetInfo(&free, &total) == cudaSuccess) {
      cudaGetLastError();  // forgets it, so that the next launch is not blamed
      ThrowDeviceError("out of device memory",
                       std::to_string(bytes) + " bytes are needed, and " + std::to_string(free) +
                           " of " + std::to_string(total) + " are free",
                       true);
    }
    CheckCuda(status, std::to_string(bytes) + " bytes of device memory");
    memory_.reset(static_cast<uint8_t*>(p));
  }
  uint8_t* data() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(uint8_t* p) const { cudaFree(p); }
  };
  std::unique_ptr<uint8_t, Free> memory_;
};

/// The stream that everything runs on; one that can be captured.
cudaStream_t DeviceStream();

/// What a kernel may do with a buffer.
enum class Access { read, write };

/// What a pass keeps on the device (kernels/device_pass.h) of the bytes at `host`, or null. Throws
/// Error where they begin in a kept buffer and go on behind it.
uint8_t* TwinOf(const void* host, size_t bytes, Access access);
/// Likewise a whole matrix in its layout on the device; null for a part of one.
const uint8_t* WeightsTwinOf(const WeightView& w);

/// Moves the buffers of a row's arguments to the device and what it wrote back. Those that a pass
/// keeps there are replaced by their twins, and nothing of them is copied.
class Transfer {
 public:
  /// p, which points to n values on the host, points to a copy on the device afterwards.
  template <class T>
  void In(const T*& p, size_t n) {
    if (!p) return;
    const uint8_t* const twin = TwinOf(p, n * sizeof(T), Access::read);
    p = twin ? reinterpret_cast<const T*>(twin) : Upload(p, n);
  }
  /// The same, and Finish copies them back. What is there before goes along, so that values between
  /// strides, or never written, come back as they were.
  template <class T>
  void InOut(T*& p, size_t n) {
    if (!p) return;
    if (uint8_t* const twin = TwinOf(p, n * sizeof(T), Access::write)) {
      p = reinterpret_cast<T*>(twin);
      return;
    }
    T* const device = Upload(p, n);
    outputs_.push_back({p, device, n * sizeof(T)});
    p = device;
  }
  /// The same, not initialised and not copied back.
  template <class T>
  void Scratch(T*& p, size_t n) {
    if (n == 0) return;
    if (uint8_t* const twin = p ? TwinOf(p, n * sizeof(T), Access::write) : nullptr) {
      p = reinterpret_cast<T*>(twin);
      return;
    }
    buffers_.emplace_back(n * sizeof(T));
    p = reinterpret_cast<T*>(buffers_.back().data());
  }
  /// Weights in their layout on the device.
  void Weights(WeightView& w) {
    w.rows8 = nullptr;
    if (const uint8_t* const twin = WeightsTwinOf(w)) {
      w.data = twin;
      return;
    }
    const std::vector<uint8_t> planes = DeviceLayout(w);
    w.data = Upload(planes.empty() ? w.data : planes.data(), w.bytes());
  }
  /// Whether all buffers were twins.
  bool CopiedNothing() const { return buffers_.empty(); }
  /// Waits for the kernel, if something was copied.
  void Finish() {
    if (CopiedNothing()) return;
    for (const Output& o : outputs_)
      CheckCuda(cudaMemcpyAsync(o.host, o.device, o.bytes, cudaMemcpyDeviceToHost, stream_),
                "copying a result from the device");
    CheckCuda(cudaStreamSynchronize(stream_), "running a kernel");
  }

 private:
  struct Output {
    void* host;
    const void* device;
    size_t bytes;
  };
  // Pageable host memory is read before cudaMemcpyAsync returns.
  template <class T>
  T* Upload(const T* from, size_t n) {
    buffers_.emplace_back(n * sizeof(T));
    uint8_t* const to = buffers_.back().data();
    CheckCuda(cudaMemcpyAsync(to, from, n * sizeof(T), cudaMemcpyHostToDevice, stream_),
              "copying to the device");
    return reinterpret_cast<T*>(to);
  }

  cudaStream_t stream_ = DeviceStream();
  std::vector<DeviceBuffer> buffers_;
  std::vector<Output> outputs_;
};

// ---- what the arguments of each op point to

/// Values from the first to the last of `tokens` rows of n that begin `stride` apart.
inline size_t Strided(size_t tokens, size_t stride, size_t n) {
  return tokens == 0 ? 0 : (tokens - 1) * stride + n;
}

inline void Move(DequantArgs<float>& a, Transfer& t) {
  t.InOut(a.y, a.w.rows * a.w.cols);
  t.Weights(a.w);
}
inline void Move(EmbedArgs<float>& a, Transfer& t) {
  t.Weights(a.table);
  t.In(a.ids, a.tokens);
  t.InOut(a.y, a.tokens * a.table.cols);
}
inline void Move(RmsNormArgs<float>& a, Transfer& t) {
  t.In(a.x, a.tokens * a.n);
  t.In(a.weight, a.n);
  t.InOut(a.y, a.tokens * a.n);
}
inline void Move(QuantizeArgs<float>& a, Transfer& t) {
  const size_t values = a.tokens * a.n;
  t.In(a.x, values);
  t.InOut(a.hi, values);
  t.InOut(a.lo, values);
  t.InOut(a.scale, values / a.block);
  t.InOut(a.sums, values / 16);
}
inline void Move(QuantizedView& xq, size_t tokens, Transfer& t) {
  const size_t values = tokens * xq.n;
  t.In(xq.hi, values);
  t.In(xq.lo, values);
  t.In(xq.scale, xq.hi ? values / xq.block : 0);
  t.In(xq.sums, values / 16);
}
inline void Move(MatvecArgs<float>& a, Transfer& t) {
  const size_t outputs = Strided(a.tokens, a.y_stride, a.w.rows);
  t.In(a.bias, a.w.rows);
  t.In(a.x, a.tokens * a.w.cols);
  Move(a.xq, a.tokens, t);
  t.InOut(a.y, outputs);
  t.InOut(a.y_before_bias, outputs);
  t.Weights(a.w);
}
inline void Move(GateUpArgs<float>& a, Transfer& t) {
  const size_t outputs = Strided(a.tokens, a.y_stride, a.w_gate.rows);
  t.In(a.x, a.tokens * a.w_gate.cols);
  Move(a.xq_gate, a.tokens, t);
  Move(a.xq_up, a.tokens, t);
  t.InOut(a.gate, outputs);
  t.InOut(a.up, outputs);
  t.Weights(a.w_gate);
  t.Weights(a.w_up);
}
inline void Move(GateUpSwigluArgs<float>& a, Transfer& t) {
  const size_t outputs = Strided(a.gate_up.tokens, a.gate_up.y_stride, a.Items());
  Move(a.gate_up, t);
  t.InOut(a.silu, outputs);
  t.InOut(a.y, outputs);
}
inline void Move(RopeArgs<float>& a, Transfer& t) {
  const size_t values = Strided(a.tokens, a.stride, a.heads * a.head_dim);
  t.In(a.x, values);
  t.InOut(a.y, values);
  t.In(a.cos, a.tokens * (a.head_dim / 2));
  t.In(a.sin, a.tokens * (a.head_dim / 2));
}
inline void Move(KvStoreArgs<float>& a, Transfer& t) {
  const size_t values = Strided(a.tokens, a.stride, a.kv_heads * a.head_dim);
  const size_t cached = a.kv_heads * a.kv_head_stride;
  t.In(a.k, values);
  t.In(a.v, values);
  t.InOut(a.k_cache, cached);
  t.InOut(a.v_cache, cached);
  t.InOut(a.k_half, cached);
  t.InOut(a.v_half, cached);
  t.In(a.first_position_at, 1);
}
inline void Move(GqaAttentionArgs<float>& a, Transfer& t) {
  t.In(a.q, Strided(a.tokens, a.q_stride, a.heads * a.head_dim));
  t.In(a.k, a.KeyExtent());
  t.In(a.v, a.ValueExtent());
  t.In(a.k16, a.KeyExtent());
  t.In(a.v16, a.ValueExtent());
  t.InOut(a.y, Strided(a.tokens, a.y_stride, a.heads * a.head_dim));
  t.Scratch(a.scratch, a.ScratchValues());
  t.In(a.first_position_at, 1);
}
inline void Move(ResidualAddArgs<float>& a, Transfer& t) {
  t.In(a.a, a.n);
  t.In(a.b, a.n);
  t.InOut(a.y, a.n);
}
inline void Move(SiluArgs<float>& a, Transfer& t) {
  t.In(a.x, a.n);
  t.InOut(a.y, a.n);
}
inline void Move(SwigluArgs<float>& a, Transfer& t) {
  t.In(a.silu, a.n);
  t.In(a.up, a.n);
  t.InOut(a.y, a.n);
}
inline void Move(TapSumsArgs& a, Transfer& t) {
  t.In(a.values, Strided(a.tokens, a.stride, a.n));
  t.InOut(a.sums, a.tokens * TapSums::Pieces(a.n));
}

/// Runs a launcher on arguments on the host. Throws Error where the device fails. What works on
/// twins alone may not have begun when this returns.
template <class Args>
void RunOnDevice(Args a, void (*launch)(const Args&, cudaStream_t)) {
  Transfer transfer;
  Move(a, transfer);
  if constexpr (std::is_constructible_v<JoinableStep, Args>) {
    if (transfer.CopiedNothing()) return LaunchLater(a);
  }
  LaunchWaiting();
  launch(a, DeviceStream());
  transfer.Finish();
}

}  // namespace lab::LAB_CUDA_NAMESPACE
