#include "kernels/elementwise.cuh"
#include "kernels/launchers.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

// A thread for each value of k and v.
struct KvStoreElement {
  KvStoreArgs a;
  __device__ void operator()(size_t i) const {
    const size_t first = a.first_position_at ? *a.first_position_at : a.first_position;
    const size_t token = i / a.kv_dim, column = i % a.kv_dim;
    const size_t from = token * a.stride + column, to = (first + token) * a.kv_dim + column;
    if (a.k_half) {
      a.k_half[to] = __half_as_ushort(__float2half_rn(a.k[from]));
      a.v_half[to] = __half_as_ushort(__float2half_rn(a.v[from]));
    } else {
      a.k_cache[to] = a.k[from];
      a.v_cache[to] = a.v[from];
    }
  }
};

}  // namespace

void LaunchKvStore(const KvStoreArgs& a, cudaStream_t stream) {
  LaunchElementwise(KvStoreElement{a}, a.tokens * a.kv_dim, stream);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
