#include "kernels/elementwise.cuh"
#include "kernels/launchers.cuh"
#include "kernels/rope.cuh"

namespace lab::LAB_CUDA_NAMESPACE {
namespace {

struct KvStore {
  KvStoreArgs<float> a;

  size_t Values() const { return a.tokens * a.kv_heads * a.head_dim; }
  __device__ size_t Position(size_t token) const {
    return (a.first_position_at ? *a.first_position_at : a.first_position) + token;
  }
  __device__ void Key(size_t token, size_t head, size_t channel) const {
    const float k = a.k[token * a.stride + head * a.head_dim + channel];
    Store(k, a.k_cache, a.k_half, a.KeyOffset(head, Position(token), channel));
  }
  __device__ void Value(size_t token, size_t head, size_t channel) const {
    const float v = a.v[token * a.stride + head * a.head_dim + channel];
    Store(v, a.v_cache, a.v_half, a.ValueOffset(head, Position(token), channel));
  }
  /// f(token, head, channel) of value i.
  template <class F>
  __device__ void At(size_t i, F&& f) const {
    f(i / (a.kv_heads * a.head_dim), i / a.head_dim % a.kv_heads, i % a.head_dim);
  }

 private:
  __device__ static void Store(float value, float* cache, uint16_t* half, size_t at) {
    if (half)
      half[at] = __half_as_ushort(__float2half_rn(value));
    else
      cache[at] = value;
  }
};

// A thread for each value of k and v.
struct KvStoreElement {
  KvStore store;
  __device__ void operator()(size_t i) const {
    store.At(i, [&](size_t token, size_t head, size_t channel) {
      store.Key(token, head, channel);
      store.Value(token, head, channel);
    });
  }
};

// A thread for each pair of q, then of k, then for each value of v. Who has turned a pair of k
// stores it.
struct RopeKvStoreElement {
  RopePair q, k;
  KvStore store;
  size_t q_pairs, k_pairs;
  __device__ void operator()(size_t i) const {
    if (i < q_pairs) return q(i);
    i -= q_pairs;
    if (i < k_pairs) {
      k(i);
      const size_t half = k.a.head_dim / 2;
      for (size_t channel = i % half; channel < k.a.head_dim; channel += half)
        store.Key(k.Token(i), k.Head(i), channel);
      return;
    }
    store.At(i - k_pairs,
             [&](size_t token, size_t head, size_t channel) { store.Value(token, head, channel); });
  }
};

}  // namespace

void LaunchKvStore(const KvStoreArgs<float>& a, cudaStream_t stream) {
  const KvStore store = {a};
  LaunchElementwise(KvStoreElement{store}, store.Values(), stream);
}
void LaunchRopeKvStore(const RopeArgs<float>& q, const RopeArgs<float>& k,
                       const KvStoreArgs<float>& a, cudaStream_t stream) {
  const KvStore store = {a};
  const RopePair q_pair = {q}, k_pair = {k};
  const RopeKvStoreElement element = {q_pair, k_pair, store, q_pair.Pairs(), k_pair.Pairs()};
  LaunchElementwise(element, element.q_pairs + element.k_pairs + store.Values(), stream);
}

}  // namespace lab::LAB_CUDA_NAMESPACE
