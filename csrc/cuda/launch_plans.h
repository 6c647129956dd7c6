// The stages on tensors: which kernel serves which size, with how many threads, blocks and how much scratch memory.
#pragma once
#include <optional>

#include "backward.cuh"
#include "kernel_launch.h"
#include "spectral.cuh"
#include "transform.cuh"

namespace svmax::cuda {

// ---- crossovers: predictions of `python -m benchmarks.gpu_model`, to be replaced by measurements

// Up to here a thread block takes a whole matrix: in registers to 128, then in shared memory, then in L2, where one
// multiprocessor's bandwidth to it is the limit. Beyond, 60 float64 matrix products over all multiprocessors are
// faster. The number of matrices has no say: so a matrix has the same bits alone and in a batch.
constexpr int64_t kMostInBlock = 192;
// Singular values have no such way out but torch.linalg, which waits for the host: so they stay here for longer.
constexpr int64_t kMostForSingularValues = 1024;
// The backward's own kernel reads W once for every 8 rows; larger ones go to matrix products.
constexpr int64_t kMostInBackward = 256;
// Blocks that one matrix's Gram product is spread over: about one for each multiprocessor of an A100 or H100.
constexpr int64_t kGramBlocks = 128;
// Scratch memory of one group of launches; a larger batch is worked through in several.
constexpr int64_t kScratchBytes = int64_t(256) << 20;
constexpr int64_t kMostMatrices = 32768;  // a grid's y and z end at 65535

// f<N>() with the smallest template that n fits.
template <int kMost, typename F>
void with_size(int64_t n, const F& f) {
  if (n <= 16) return f.template operator()<16>();
  if (n <= 32) return f.template operator()<32>();
  if (n <= 64) return f.template operator()<64>();
  if (n <= 128) return f.template operator()<128>();
  if constexpr (kMost > 256)
    if (n > 256) return f.template operator()<kMost>();
  f.template operator()<256>();
}

template <typename F>
void with_scalar(Scalar scalar, const F& f) {
  switch (scalar) {
    case Scalar::Half:
      return f.template operator()<Half>();
    case Scalar::BFloat16:
      return f.template operator()<BFloat16>();
    case Scalar::Float:
      return f.template operator()<float>();
    case Scalar::Double:
      return f.template operator()<double>();
  }
}

inline Tensor scratch(const std::vector<int64_t>& sizes, const Tensor& like) {
  return never_written(empty(sizes, aoti_torch_dtype_float64(), like));
}

// f(first, count) for groups of matrices whose scratch memory stays within bounds.
template <typename F>
void for_each_group(int64_t matrices, int64_t bytes_each, const F& f) {
  const int64_t most = std::clamp<int64_t>(kScratchBytes / std::max<int64_t>(bytes_each, 1), 1, kMostMatrices);
  for (int64_t first = 0; first < matrices; first += most) f(first, std::min(most, matrices - first));
}

// ---- gram

struct GramPlan {
  int64_t n, tiles, splits, terms_per_split;

  GramPlan(int64_t b, int64_t d) : n(std::min(b, d)), tiles((n + kTile - 1) / kTile) {
    const int64_t terms = std::max(b, d), deep = (terms + kGramDepth - 1) / kGramDepth;
    const int64_t wanted = std::clamp<int64_t>(kGramBlocks / (tiles * (tiles + 1) / 2), 1, deep);
    terms_per_split = (deep + wanted - 1) / wanted * kGramDepth;
    splits = (terms + terms_per_split - 1) / terms_per_split;
  }
  int64_t bytes() const { return splits * n * n * int64_t(sizeof(double)); }
};

template <typename scalar_t>
Rows<scalar_t> rows_of(const Matrices& in, const Tensor& x, int64_t first) {
  return {global<const scalar_t>(x),
          in.b,
          in.d,
          in.first.row_stride,
          in.first.column_stride,
          strides_of(in.batch),
          first,
          in.first.normalize,
          in.first.center};
}

// The mean row [count, d], and the row norms, for centred input.
inline Tensor launch_mean(const Device& device, const Matrices& in, const Tensor& x, const Tensor& row_norms,
                          int64_t first, int64_t count) {
  const Tensor mean = scratch({count, in.d}, x);
  with_scalar(in.first.scalar, [&]<typename scalar_t>() {
    SVMAX_LAUNCH(device, (mean_kernel<scalar_t>), Grid{(in.d + kWarp - 1) / kWarp, count}, kMeanWarps * kWarp,
                 mean_shared_bytes(), rows_of<scalar_t>(in, x, first), global<f64>(row_norms) + first * in.norms(),
                 global<f64>(mean));
  });
  return mean;
}

// The parts [count, splits, n, n] of the Gram matrices, and their row norms.
inline Tensor launch_gram(const Device& device, const Matrices& in, const Tensor& x, const Tensor& row_norms,
                          const GramPlan& plan, int64_t first, int64_t count) {
  std::optional<Tensor> mean;
  if (in.first.center) mean = launch_mean(device, in, x, row_norms, first, count);
  const Tensor partial = scratch({count, plan.splits, plan.n, plan.n}, x);
  const GramOptions options{global<f64>(partial), global<f64>(row_norms) + first * in.norms(),
                            mean ? global<const f64>(*mean) : Global<const f64>(nullptr), plan.terms_per_split};
  with_scalar(in.first.scalar, [&]<typename scalar_t>() {
    SVMAX_LAUNCH(device, (gram_kernel<scalar_t>), Grid{plan.tiles * (plan.tiles + 1) / 2, plan.splits, count},
                 kGramThreads, gram_shared_bytes(), rows_of<scalar_t>(in, x, first), options);
  });
  return partial;
}

inline Parts parts_of(const Tensor& partial, const GramPlan& plan) {
  return {global<const f64>(partial), int(plan.splits), int(plan.n)};
}

// The Gram matrices [count, n, n] themselves.
inline void launch_sum(const Device& device, const Tensor& partial, const GramPlan& plan, int64_t count,
                       Global<f64> gram) {
  SVMAX_LAUNCH(device, sum_kernel, Grid{(plan.n * plan.n + kSumThreads - 1) / kSumThreads, count}, kSumThreads, 0,
               parts_of(partial, plan), gram);
}

// ---- spectral

inline int64_t padded(int64_t n) {
  int64_t result = 0;
  with_size<1024>(n, [&]<int N>() { result = N; });
  return result;
}

// Bytes of scratch memory that one matrix's W takes besides itself.
inline int64_t factor_bytes(int64_t n) { return n * (padded(n) + 1 + 2 * kPoleStride) * int64_t(sizeof(double)); }

template <int N>
bool fits_shared(const Device& device, int64_t n) {
  return Layout<N>::kInRegisters || spectral_shared_bytes<N>(true, int(n)) <= device.most_shared_bytes();
}

// Sets what depends on where the matrix lies, and runs launch(shared bytes) with it.
template <int N, typename F>
void with_matrix_memory(const Device& device, const Tensor& like, SpectralOptions& options, const F& launch) {
  std::optional<Tensor> work;
  options.in_work = !fits_shared<N>(device, options.gram.n);
  if (options.in_work) {
    work = scratch({options.matrices, options.gram.n, options.gram.n}, like);
    options.work = global<f64>(*work);
  }
  launch(spectral_shared_bytes<N>(!options.in_work && !Layout<N>::kInRegisters, options.gram.n));
}

// The objective or the nuclear norm of each matrix of `options`.
template <int N>
void launch_spectral_as(const Device& device, const Tensor& like, SpectralOptions options) {
  with_matrix_memory<N>(device, like, options, [&](int64_t shared_bytes) {
    SVMAX_LAUNCH(device, (spectral_kernel<N>), Grid{(options.matrices + Layout<N>::kTeams - 1) / Layout<N>::kTeams},
                 Layout<N>::kThreads * Layout<N>::kTeams, shared_bytes, options);
  });
}

inline void launch_spectral(const Device& device, const Tensor& like, const SpectralOptions& options) {
  with_size<256>(options.gram.n, [&]<int N>() { launch_spectral_as<N>(device, like, options); });
}

// The same, and slope times W into weight [matrices, n, n], with its precision.
inline void launch_spectral_with_weight(const Device& device, const Tensor& like, const SpectralOptions& options,
                                        Global<f64> weight, Global<bool> in_float32) {
  const int64_t n = options.gram.n, m = options.matrices;
  with_size<256>(n, [&]<int N>() {
    const Tensor reflectors = scratch({m, n, N}, like), beta = scratch({m, n}, like);
    const Tensor ratio = scratch({m, n, kPoleStride}, like), inverse = scratch({m, n, kPoleStride}, like);
    const Tensor plan = scratch({m, Factors::kPlan}, like);
    const Factors factors{global<f64>(reflectors), global<f64>(beta), global<f64>(ratio),
                          global<f64>(inverse),    global<f64>(plan), in_float32};
    launch_spectral_as<N>(device, like, options.with_inverse_sqrt(factors));
    SVMAX_LAUNCH(device, (transform_kernel<N>), Grid{(n + Columns<N>::kPerBlock - 1) / Columns<N>::kPerBlock, m},
                 Columns<N>::kThreads, Columns<N>::shared_bytes(), factors, int(n), weight);
  });
}

inline bool fits_singular_values(const Device& device, int64_t n) {
  return n <= kMostForSingularValues &&
         (n <= 256 || spectral_shared_bytes<1024>(false, int(n)) <= device.most_shared_bytes());
}

inline void launch_singular_values(const Device& device, const Tensor& like, SpectralOptions options) {
  with_size<1024>(options.gram.n, [&]<int N>() {
    with_matrix_memory<N>(device, like, options, [&](int64_t shared_bytes) {
      SVMAX_LAUNCH(device, (singular_values_kernel<N>),
                   Grid{(options.matrices + Layout<N>::kTeams - 1) / Layout<N>::kTeams},
                   Layout<N>::kThreads * Layout<N>::kTeams, shared_bytes, options);
    });
  });
}

// ---- backward

inline bool fits_backward(const Device& device, const Matrices& in) {
  return in.n <= kMostInBackward && in.b < (int64_t(1) << 31) &&
         backward_shared_bytes<128>(in.n, in.d) <= device.most_shared_bytes();
}

// grad: one number a matrix; dx [.., b, d] contiguous.
inline void launch_backward(const Device& device, const Matrices& in, const Tensor& grad, const Tensor& x,
                            const Tensor& weight, const Tensor& in_float32, const Tensor& row_norms, const Tensor& dx) {
  const Strides strides = strides_of(Batch(grad, 0));
  const Grads grads = grad.scalar_type() == ScalarType::Double ? Grads::of_float64(global<const f64>(grad), strides)
                                                               : Grads::of_float32(global<const f32>(grad), strides);
  for_each_group(in.batch.count, in.first.center ? in.d * int64_t(sizeof(double)) : 1, [&](int64_t first, int64_t m) {
    std::optional<Tensor> mean;
    if (in.first.center) {
      // The mean is cheap to take again, and d numbers less are kept between forward and backward. The kernel writes
      // the norms as well, the same ones: into scratch memory, since what autograd keeps is not to be written to.
      const Tensor norms = scratch({in.batch.count, in.norms()}, x);
      mean = launch_mean(device, in, x, norms, first, m);
    }
    const BackwardOptions options{grads, global<const f64>(weight) + first * in.n * in.n,
                                  global<const bool>(in_float32) + first,
                                  global<const f64>(row_norms) + first * in.norms(),
                                  mean ? global<const f64>(*mean) : Global<const f64>(nullptr)};
    const auto launch = [&]<typename scalar_t, int kColumns>() {
      SVMAX_LAUNCH(device, (backward_kernel<scalar_t, kColumns>),
                   Grid{(in.b + kBlockRows<kColumns> - 1) / kBlockRows<kColumns>, m}, kBackwardThreads,
                   backward_shared_bytes<kColumns>(in.n, in.d), rows_of<scalar_t>(in, x, first), options,
                   global<scalar_t>(dx) + first * in.b * in.d);
    };
    with_scalar(in.first.scalar, [&]<typename scalar_t>() {
      if (in.d <= 32)
        launch.template operator()<scalar_t, 32>();
      else
        launch.template operator()<scalar_t, 128>();
    });
  });
}

}  // namespace svmax::cuda
