// Streams, which do everything at once, and graphs, which are lists of what would have been done.
#include <utility>
#include <vector>

#include "tests/simt/simt.h"

struct lab::cuda_host::CUstream_st {};
struct lab::cuda_host::CUgraph_st {
  std::vector<std::function<void()>> work;
};
struct lab::cuda_host::CUgraphExec_st {
  std::vector<std::function<void()>> work;
};

namespace lab::cuda_host {
namespace {

cudaStream_t captured_stream = nullptr;
cudaGraph_t captured = nullptr;  // null: no capture

}  // namespace

const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureImplicit:
      return "operation would make the legacy stream depend on a capturing blocking stream";
  }
  return "unknown error";
}

cudaError_t Enqueue(cudaStream_t stream, std::function<void()> work) {
  if (captured && stream != captured_stream) return cudaErrorStreamCaptureImplicit;
  if (captured)
    captured->work.push_back(std::move(work));
  else
    work();
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return captured ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (captured || !stream) return cudaErrorStreamCaptureUnsupported;
  captured_stream = stream;
  captured = new CUgraph_st;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = std::exchange(captured, nullptr);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
  for (const std::function<void()>& work : exec->work) work();
  return cudaSuccess;
}

}  // namespace lab::cuda_host
