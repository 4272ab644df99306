#include <chrono>
#include <map>

#include "kernels/device_pass.h"
#include "kernels/launchers.cuh"
#include "kernels/on_device.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

cudaStream_t stream = nullptr;

struct Twin;
// By the first byte of the buffer on the host.
std::map<const uint8_t*, Twin*> twins;

// Several passes may share one.
struct Twin : std::enable_shared_from_this<Twin> {
  Twin(const uint8_t* host_buffer, size_t n) : host(host_buffer), bytes(n), memory(n) {
    twins[host] = this;
  }
  Twin(const Twin&) = delete;
  Twin& operator=(const Twin&) = delete;
  ~Twin() { twins.erase(host); }

  const uint8_t* const host;
  const size_t bytes;
  DeviceBuffer memory;
};

// The twin of the buffer in which p lies, or null.
Twin* FindTwin(const void* host) {
  const auto* p = static_cast<const uint8_t*>(host);
  auto next = twins.upper_bound(p);
  if (next == twins.begin()) return nullptr;
  Twin* const twin = std::prev(next)->second;
  return p < twin->host + twin->bytes ? twin : nullptr;
}

class Pass;
// The one whose KeepArguments runs.
Pass* keeping = nullptr;

std::string MebibytesText(size_t bytes) {
  return std::to_string((bytes + (1 << 20) - 1) >> 20);
}

class Pass : public DevicePass {
 public:
  ~Pass() override {
    ForgetWaiting();  // steps of a batch that failed: one that ended has fetched its logits
    DropGraph();
  }

  void KeepConstant(const void* host, size_t bytes) override {
    wanted_.push_back({static_cast<const uint8_t*>(host), bytes, true, {}});
  }
  void KeepWeights(const WeightView& w) override {
    wanted_.push_back({w.data, w.bytes(), true, w});
  }
  void KeepBuffer(const void* host, size_t bytes) override {
    wanted_.push_back({static_cast<const uint8_t*>(host), bytes, false, {}});
  }

  void Place() override {
    CheckFree();
    for (const Wanted& w : wanted_) {
      if (w.bytes == 0) continue;
      if (Twin* const there = FindTwin(w.host)) {
        kept_.push_back(there->shared_from_this());
        continue;
      }
      kept_.push_back(std::make_shared<Twin>(w.host, w.bytes));
      if (w.is_constant) UploadConstant(w, kept_.back()->memory.data());
    }
    wanted_.clear();
  }

  void KeepArguments(const std::function<void()>& rows) override {
    keeping = this;
    try {
      rows();
      Wait();
    } catch (...) {
      ForgetWaiting();
      keeping = nullptr;
      throw;
    }
    keeping = nullptr;
  }
  // Of a buffer that has no twin yet. Weights: with rows, else values.
  void KeepArgument(const void* host, size_t bytes, const WeightView& weights, Access access) {
    if (bytes == 0) return;
    if (access == Access::write) outputs_[const_cast<void*>(host)] = bytes;
    if (FindTwin(host)) return;
    const Wanted wanted = {static_cast<const uint8_t*>(host), bytes, true, weights};
    kept_.push_back(std::make_shared<Twin>(wanted.host, bytes));
    UploadConstant(wanted, kept_.back()->memory.data());
  }
  void UploadOutputs() override {
    for (const auto& [host, bytes] : outputs_) Upload(host, bytes);
  }
  void FetchOutputs() override {
    for (const auto& [host, bytes] : outputs_) Fetch(host, bytes);
  }

  void Upload(const void* host, size_t bytes) override {
    Copy(TwinOf(host, bytes, Access::write), host, bytes, cudaMemcpyHostToDevice);
  }
  void Fetch(void* host, size_t bytes) override {
    Copy(host, TwinOf(host, bytes, Access::read), bytes, cudaMemcpyDeviceToHost);
    Wait();
  }
  void Wait() override {
    LaunchWaiting();
    CheckCuda(cudaStreamSynchronize(DeviceStream()), "running the steps of a pass");
  }
  void StoreKv(const KvStoreArgs<float>& a) override { RunOnDevice(a, LaunchKvStore); }
  void SumRows(const TapSumsArgs& a) override { RunOnDevice(a, LaunchTapSums); }

  void Capture(const std::function<void()>& steps) override {
    LaunchWaiting();
    DropGraph();
    saved_.clear();
    // Relaxed, since Save allocates.
    CheckCuda(cudaStreamBeginCapture(DeviceStream(), cudaStreamCaptureModeRelaxed),
              "capturing a graph");
    cudaGraph_t graph = nullptr;
    try {
      capturing_ = true;
      steps();
      LaunchWaiting();
      capturing_ = false;
    } catch (...) {
      ForgetWaiting();
      capturing_ = false;
      cudaStreamEndCapture(DeviceStream(), &graph);
      if (graph) cudaGraphDestroy(graph);
      throw;
    }
    CheckCuda(cudaStreamEndCapture(DeviceStream(), &graph), "capturing a graph");
    const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    CheckCuda(status, "making a graph");
  }
  bool capturing() const override { return capturing_; }
  void EndLaunch() override { LaunchWaiting(); }
  void Save(const void* host, size_t bytes) override {
    saved_.push_back({DeviceBuffer(bytes), bytes});
    Copy(saved_.back().memory.data(), TwinOf(host, bytes, Access::read), bytes,
         cudaMemcpyDeviceToDevice);
  }
  void FetchSaved(size_t i, void* host) override {
    Copy(host, saved_[i].memory.data(), saved_[i].bytes, cudaMemcpyDeviceToHost);
    Wait();
  }
  void Replay() override {
    LaunchWaiting();
    CheckCuda(cudaGraphLaunch(graph_, DeviceStream()), "graph launch");
  }

 private:
  struct Wanted {
    const uint8_t* host;
    size_t bytes;
    bool is_constant;
    WeightView weights;  // no rows: values
  };
  struct Saved {
    DeviceBuffer memory;
    size_t bytes;
  };

  // Counts a matrix that is wanted twice (tied embeddings) once.
  void CheckFree() const {
    std::map<const uint8_t*, size_t> missing;
    for (const Wanted& w : wanted_)
      if (!FindTwin(w.host)) missing[w.host] = (w.bytes + 255) / 256 * 256;
    size_t needed = 0, free = 0, total = 0;
    for (const auto& [host, bytes] : missing) needed += bytes;
    CheckCuda(cudaMemGetInfo(&free, &total), "asking for free device memory");
    if (needed > free)
      ThrowDeviceError("out of device memory",
                       "this pass needs " + MebibytesText(needed) + " MiB, and " +
                           MebibytesText(free) + " of " + MebibytesText(total) +
                           " MiB are free; a smaller model or fewer tokens need less",
                       true);
  }
  static void UploadConstant(const Wanted& w, uint8_t* to) {
    const std::vector<uint8_t> planes =
        w.weights.rows > 0 ? DeviceLayout(w.weights) : std::vector<uint8_t>();
    Copy(to, planes.empty() ? w.host : planes.data(), w.bytes, cudaMemcpyHostToDevice);
  }
  // Pageable host memory is read before cudaMemcpyAsync returns.
  static void Copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    LaunchWaiting();
    CheckCuda(cudaMemcpyAsync(to, from, bytes, kind, DeviceStream()),
              "copying " + std::to_string(bytes) + " bytes of a pass");
  }
  void DropGraph() {
    if (graph_) cudaGraphExecDestroy(graph_);
    graph_ = nullptr;
  }

  std::vector<Wanted> wanted_;
  std::vector<std::shared_ptr<Twin>> kept_;
  std::map<void*, size_t> outputs_;  // bytes of those that rows of KeepArguments write to
  std::vector<Saved> saved_;
  cudaGraphExec_t graph_ = nullptr;
  bool capturing_ = false;
};

}  // namespace

cudaStream_t DeviceStream() {
  if (!stream)
    CheckCuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  return stream;
}

uint8_t* TwinOf(const void* host, size_t bytes, Access access) {
  if (keeping) keeping->KeepArgument(host, bytes, {}, access);
  const Twin* const twin = FindTwin(host);
  if (!twin) return nullptr;
  const auto at = static_cast<size_t>(static_cast<const uint8_t*>(host) - twin->host);
  if (at + bytes > twin->bytes)
    ThrowDeviceError("a buffer on the device", "bytes " + std::to_string(at) + " to " +
                                                   std::to_string(at + bytes) + " of " +
                                                   std::to_string(twin->bytes) + " are wanted");
  return twin->memory.data() + at;
}

const uint8_t* WeightsTwinOf(const WeightView& w) {
  if (keeping) keeping->KeepArgument(w.data, w.bytes(), w, Access::read);
  const Twin* const twin = FindTwin(w.data);
  const bool whole = twin && twin->host == w.data && twin->bytes == w.bytes();
  return whole ? twin->memory.data() : nullptr;
}

double CopyRate() {
  constexpr size_t kBytes = size_t{1} << 30;  // many times the cache of any device
  constexpr int kCopies = 10;
  const DeviceBuffer from(kBytes), to(kBytes);
  const auto copy = [&](int times) {
    for (int i = 0; i < times; ++i)
      CheckCuda(
          cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, DeviceStream()),
          "copying within the device");
    CheckCuda(cudaStreamSynchronize(DeviceStream()), "copying within the device");
  };
  copy(1);  // wakes the device up
  const auto begin = std::chrono::steady_clock::now();
  copy(kCopies);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  return 2.0 * kBytes * kCopies / taken.count();
}

std::unique_ptr<DevicePass> MakeDevicePass() {
  return std::make_unique<Pass>();
}

}  // namespace lab::LAB_CUDA_NAMESPACE
