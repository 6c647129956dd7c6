// W = slope Q T^(-1/2) Q': the last step of stage `spectral`, column by column.
//
// A column of W needs no other: y = Q' e_j, then T^(-1/2) y, then Q times that. So one matrix keeps several blocks
// busy, and no warp ever waits for another.
#pragma once
#include "inverse_sqrt.cuh"

namespace svmax::cuda {

template <int N>
struct Columns {
  static constexpr int kLanes = N <= 16 ? 2 : N <= 32 ? 1 : N / 32;  // that share a column
  static constexpr int kRows = N / kLanes;                           // of each: lane, lane + kLanes, ...
  static constexpr int kCount = kWarp / kLanes;                      // columns of a warp
  static constexpr int kWarps = 2;                                   // of a block
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kPerBlock = kWarps * kCount;

  static constexpr int shared_bytes() { return 2 * kWarps * cuda::shared_bytes<f64>(N * kCount); }
};

// y -= beta u (u'y), y spread over the lanes of a column.
template <int N, typename T>
SVMAX_DEVICE void reflect(T (&y)[Columns<N>::kRows], Global<const f64> reflector, int k, T beta, int part) {
  constexpr int kLanes = Columns<N>::kLanes, kRows = Columns<N>::kRows, kColumns = Columns<N>::kCount;
  T u[kRows], dot[4] = {};
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
    if (m * kLanes >= k) continue;  // zero from entry k on
    u[m] = T(reflector[m * kLanes + part]);
    dot[m % 4] = fma(u[m], y[m], dot[m % 4]);
  }
  T sum = (dot[0] + dot[1]) + (dot[2] + dot[3]);
#pragma unroll
  for (int mask = kColumns; mask < kWarp; mask *= 2) sum = sum + __shfl_xor_sync(kAllLanes, sum, mask);
  const T factor = -(beta * sum);
#pragma unroll
  for (int m = 0; m < kRows; ++m)
    if (m * kLanes < k) y[m] = fma(factor, u[m], y[m]);
}

// z = sum_j w_j (T + a_j)^(-1) y for the columns of a warp, [n, kCount] in shared memory.
//
// Row i of an inverse is row i - 1 times ratio[i], with inverse[i] on the diagonal. So its lower half times y is one
// recurrence downwards, its upper half one upwards, and the lanes of a column share the poles.
template <int N, typename T>
SVMAX_DEVICE void apply_inverse_sqrt(int n, int count, Global<const f64> ratio, Global<const f64> inverse,
                                     const Shared<T>& y, const Shared<T>& z) {
  constexpr int kLanes = Columns<N>::kLanes, kColumns = Columns<N>::kCount, kTogether = 4;
  const int column = lane_index() % kColumns, part = lane_index() / kColumns;
  for (int first = 0; first < count; first += kTogether * kLanes) {
    T down[kTogether] = {}, up[kTogether] = {};
    for (int step = 0; step < n; ++step) {
      const int i = step, k = n - 1 - step;  // the rows where the two recurrences are
      const T y_i = y[i * kColumns + column];
      const T y_next = k + 1 < n ? T(y[(k + 1) * kColumns + column]) : T(0);
      T sum_i = 0, sum_k = 0;
#pragma unroll
      for (int q = 0; q < kTogether; ++q) {
        const int j = first + q * kLanes + part;
        if (j >= count) continue;
        down[q] = fma(T(ratio[i * kPoleStride + j]), down[q], T(inverse[i * kPoleStride + j]) * y_i);
        if (k + 1 < n) up[q] = T(ratio[(k + 1) * kPoleStride + j]) * (y_next + up[q]);
        sum_i = sum_i + down[q];
        sum_k = fma(T(inverse[k * kPoleStride + j]), up[q], sum_k);
      }
#pragma unroll
      for (int mask = kColumns; mask < kWarp; mask *= 2) {
        sum_i = sum_i + __shfl_xor_sync(kAllLanes, sum_i, mask);
        sum_k = sum_k + __shfl_xor_sync(kAllLanes, sum_k, mask);
      }
      if (part != 0) continue;
      z[i * kColumns + column] = z[i * kColumns + column] + sum_i;
      z[k * kColumns + column] = z[k * kColumns + column] + sum_k;
    }
  }
}

// weight [n, n] of one matrix: the columns of one warp.
template <int N, typename T>
SVMAX_DEVICE void transform(const Factors& factors, int64_t matrix, int n, int first, bool round, SharedMemory memory,
                            Global<f64> weight) {
  using C = Columns<N>;
  const Global<const f64> reflectors = factors.reflectors + matrix * n * N, betas = factors.beta + matrix * n;
  const Global<const f64> plan = factors.plan + matrix * Factors::kPlan;
  const int column = lane_index() % C::kCount, part = lane_index() / C::kCount, j = first + column;
  const Shared<T> y_shared = memory.take<T>(N * C::kCount), z_shared = memory.take<T>(N * C::kCount);

  T y[C::kRows];
#pragma unroll
  for (int m = 0; m < C::kRows; ++m) y[m] = T(m * C::kLanes + part == j ? 1 : 0);
  for (int k = n - 1; k > 0; --k) reflect<N>(y, reflectors + k * N, k, T(betas[k]), part);
#pragma unroll
  for (int m = 0; m < C::kRows; ++m) {
    y_shared[(m * C::kLanes + part) * C::kCount + column] = y[m];
    z_shared[(m * C::kLanes + part) * C::kCount + column] = T(0);
  }
  __syncwarp();
  apply_inverse_sqrt<N, T>(n, int(double(plan[Factors::kCount])), factors.ratio + matrix * n * kPoleStride,
                           factors.inverse + matrix * n * kPoleStride, y_shared, z_shared);
  __syncwarp();
#pragma unroll
  for (int m = 0; m < C::kRows; ++m) y[m] = z_shared[(m * C::kLanes + part) * C::kCount + column];
  for (int k = 1; k < n; ++k) reflect<N>(y, reflectors + k * N, k, T(betas[k]), part);

  const f64 factor = plan[Factors::kFactor];
#pragma unroll
  for (int m = 0; m < C::kRows; ++m) {
    const int i = m * C::kLanes + part;
    if (i >= n || j >= n) continue;
    const f64 w = factor * f64(y[m]);
    // backward.cuh multiplies in float32 where all of W is float32 numbers: this is how it is told.
    weight[matrix * n * n + int64_t(i) * n + j] = round ? f64(f32(w)) : w;
  }
}

// grid (ceil(n / kPerBlock), matrices). weight [matrices, n, n].
template <int N>
SVMAX_KERNEL(Columns<N>::kThreads, 1)
transform_kernel(Factors factors, int n, Global<f64> weight) {
  using C = Columns<N>;
  SharedMemory memory;
  const int64_t matrix = blockIdx.y;
  const int first = int(blockIdx.x) * C::kPerBlock + warp_index() * C::kCount;
  if (first >= n) return;
  for (int warp = 0; warp < warp_index(); ++warp) {
    memory.take<f64>(N * C::kCount);
    memory.take<f64>(N * C::kCount);
  }
  const int precision = int(double(factors.plan[matrix * Factors::kPlan + Factors::kPrecision]));
  if (precision == kFloat32)
    transform<N, f32>(factors, matrix, n, first, true, memory, weight);
  else
    transform<N, f64>(factors, matrix, n, first, precision == kRoundedToFloat32, memory, weight);
}

}  // namespace svmax::cuda
