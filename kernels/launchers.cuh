#pragma once
// The launchers: every op on arguments whose pointers are device pointers, enqueued on a stream.
// Formula, shapes and aliasing are those of the op's header; on top of that,
// - buffers begin at a multiple of 16 bytes, and so does each token's row of x where weights are
//   quantised (their cols is a multiple of 32);
// - weights have the layout of kernels/device_weights.h and are whole matrices, not slices;
// - nothing is waited for, allocated or copied, so a stream that is being captured takes them.
// They throw Error where a launch fails.
#include <span>

#include "kernels/cuda.cuh"
#include "kernels/dequant.h"
#include "kernels/embed.h"
#include "kernels/gate_up_swiglu.h"
#include "kernels/gqa_attention.h"
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

void LaunchQ4kDequant(const DequantArgs<float>& a, cudaStream_t stream);
void LaunchQ6kDequant(const DequantArgs<float>& a, cudaStream_t stream);
void LaunchEmbed(const EmbedArgs<float>& a, cudaStream_t stream);
void LaunchRmsNorm(const RmsNormArgs<float>& a, cudaStream_t stream);
/// q16 where a.lo is there, else q8.
void LaunchQuantize(const QuantizeArgs<float>& a, cudaStream_t stream);
/// Ops matvec and down_proj under the contract that a.xq says: f32 where it is empty.
void LaunchMatvec(const MatvecArgs<float>& a, cudaStream_t stream);
void LaunchRope(const RopeArgs<float>& a, cudaStream_t stream);
void LaunchKvStore(const KvStoreArgs<float>& a, cudaStream_t stream);
/// head_dim up to 256, else Error with exit code 125.
void LaunchGqaAttention(const GqaAttentionArgs<float>& a, cudaStream_t stream);
void LaunchResidualAdd(const ResidualAddArgs<float>& a, cudaStream_t stream);
void LaunchGateUp(const GateUpArgs<float>& a, cudaStream_t stream);
void LaunchSilu(const SiluArgs<float>& a, cudaStream_t stream);
void LaunchSwiglu(const SwigluArgs<float>& a, cudaStream_t stream);
/// Where the two matrices differ in type, gate, up and silu must be wanted.
void LaunchGateUpSwiglu(const GateUpSwigluArgs<float>& a, cudaStream_t stream);
void LaunchTapSums(const TapSumsArgs& a, cudaStream_t stream);

// Steps that follow each other, in one launch; the same bits as one by one. What
// they may be given is decided in kernels/joined_steps_cuda.cu.
void LaunchRmsNormQuantize(const RmsNormArgs<float>& norm, const QuantizeArgs<float>& integers,
                           cudaStream_t stream);
/// Matvecs of one token's activations with different matrices of quantised types; their outputs do
/// not overlap.
constexpr size_t kMostProjections = 3;
void LaunchProjections(std::span<const MatvecArgs<float>> parts, cudaStream_t stream);
/// Of one token: sum.b is a.y, which is written too.
void LaunchMatvecResidualAdd(const MatvecArgs<float>& a, const ResidualAddArgs<float>& sum,
                             cudaStream_t stream);
void LaunchRopeKvStore(const RopeArgs<float>& q, const RopeArgs<float>& k,
                       const KvStoreArgs<float>& a, cudaStream_t stream);

}  // namespace lab::LAB_CUDA_NAMESPACE
