#include "kernels/elementwise.cuh"
#include "kernels/launchers.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

// A thread for each value of k and v.
struct KvStoreElement {
  KvStoreArgs<float> a;
  __device__ void operator()(size_t i) const {
    const size_t first = a.first_position_at ? *a.first_position_at : a.first_position;
    const size_t kv_dim = a.kv_heads * a.head_dim, token = i / kv_dim, column = i % kv_dim;
    const size_t from = token * a.stride + column, position = first + token;
    const size_t head = column / a.head_dim, channel = column % a.head_dim;
    const size_t k_to = a.KeyOffset(head, position, channel);
    const size_t v_to = a.ValueOffset(head, position, channel);
    if (a.k_half) {
      a.k_half[k_to] = __half_as_ushort(__float2half_rn(a.k[from]));
      a.v_half[v_to] = __half_as_ushort(__float2half_rn(a.v[from]));
    } else {
      a.k_cache[k_to] = a.k[from];
      a.v_cache[v_to] = a.v[from];
    }
  }
};

}  // namespace

void LaunchKvStore(const KvStoreArgs<float>& a, cudaStream_t stream) {
  LaunchElementwise(KvStoreElement{a}, a.tokens * a.kv_heads * a.head_dim, stream);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
