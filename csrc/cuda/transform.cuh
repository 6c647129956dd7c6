// W = slope Q T^(-1/2) Q': the last step of stage `spectral`, column by column.
//
// A column of W needs no other: y = Q' e_j, then T^(-1/2) y, then Q times that. So one matrix keeps several blocks
// busy, and no warp ever waits for another.
#pragma once
#include "inverse_sqrt.cuh"

namespace svmax::cuda {

template <int N>
struct Columns {
  static constexpr int kLanes = N <= 32 ? 2 : N / 16;  // that share a column
  static constexpr int kRows = N / kLanes;             // of each: lane, lane + kLanes, ...
  static constexpr int kCount = kWarp / kLanes;        // columns of a warp
  static constexpr int kPoles = 2;  // of a lane at a time: more would take registers from other warps
  static constexpr int kWarps = 2;  // of a block
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kPerBlock = kWarps * kCount;

  static constexpr int shared_bytes() { return 2 * kWarps * cuda::shared_bytes<f64>(N * kCount); }
};

// The part of u_k that a lane's rows meet, zero from entry k on.
template <int N, typename T>
SVMAX_DEVICE void read_reflector(Global<const f64> reflectors, int k, int part, T (&u)[Columns<N>::kRows]) {
  constexpr int kLanes = Columns<N>::kLanes, kRows = Columns<N>::kRows, kTogether = 8;
#pragma unroll
  for (int m0 = 0; m0 < kRows; m0 += kTogether) {
    if (m0 * kLanes >= k) continue;  // in whole groups, so that reads can overlap
#pragma unroll
    for (int m = m0; m < m0 + kTogether; ++m) u[m] = T(reflectors[k * N + m * kLanes + part]);
  }
}

// y -= beta u (u'y), y spread over the lanes of a column.
template <int N, typename T>
SVMAX_DEVICE void reflect(T (&y)[Columns<N>::kRows], const T (&u)[Columns<N>::kRows], int k, T beta) {
  constexpr int kLanes = Columns<N>::kLanes, kRows = Columns<N>::kRows, kTogether = 8;
  T dot[4] = {};
#pragma unroll
  for (int m0 = 0; m0 < kRows; m0 += kTogether) {
    if (m0 * kLanes >= k) continue;
#pragma unroll
    for (int m = m0; m < m0 + kTogether; ++m) dot[m % 4] = fma(u[m], y[m], dot[m % 4]);
  }
  T sum = (dot[0] + dot[1]) + (dot[2] + dot[3]);
#pragma unroll
  for (int mask = Columns<N>::kCount; mask < kWarp; mask *= 2) sum = sum + __shfl_xor_sync(kAllLanes, sum, mask);
  const T factor = -(beta * sum);
#pragma unroll
  for (int m0 = 0; m0 < kRows; m0 += kTogether) {
    if (m0 * kLanes >= k) continue;
#pragma unroll
    for (int m = m0; m < m0 + kTogether; ++m) y[m] = fma(factor, u[m], y[m]);
  }
}

// y = H_last ... H_first y, k going from first to last by `step`. The next reflector is read while one is applied: it
// comes from L2, which takes as long.
template <int N, typename T>
SVMAX_DEVICE void reflect_all(T (&y)[Columns<N>::kRows], Global<const f64> reflectors, Global<const f64> betas,
                              int first, int last, int step, int part) {
  T u[Columns<N>::kRows], next[Columns<N>::kRows];
  const int count = (last - first) * step + 1;
  if (count <= 0) return;
  read_reflector<N>(reflectors, first, part, u);
  for (int i = 0; i < count; i += 2) {
    const int k = first + i * step;
    if (i + 1 < count) read_reflector<N>(reflectors, k + step, part, next);
    reflect<N>(y, u, k, T(betas[k]));
    if (i + 1 >= count) return;
    if (i + 2 < count) read_reflector<N>(reflectors, k + 2 * step, part, u);
    reflect<N>(y, next, k + step, T(betas[k + step]));
  }
}

// One half of apply_inverse_sqrt, for a few poles: rows downwards or upwards, a block of them at a time, so that the
// reads of the factors and the sums over lanes overlap.
template <int N, typename T, bool kDown>
SVMAX_DEVICE void sweep(int n, int first_pole, int count, Global<const f64> ratio, Global<const f64> inverse,
                        const Shared<T>& y, const Shared<T>& z) {
  constexpr int kLanes = Columns<N>::kLanes, kColumns = Columns<N>::kCount, kBlock = 8;
  const int column = lane_index() % kColumns, part = lane_index() / kColumns;
  constexpr int kPoles = Columns<N>::kPoles;
  T state[kPoles] = {};
  for (int step = 0; step < n; step += kBlock) {
    const int base = kDown ? step : (n - 1 - step) / kBlock * kBlock;
    T sum[kBlock] = {}, y_block[kBlock];
#pragma unroll
    for (int s = 0; s < kBlock; ++s) y_block[s] = y[(base + s) * kColumns + column];
#pragma unroll
    for (int q = 0; q < kPoles; ++q) {
      const int j = first_pole + q * kLanes + part;
      T r[kBlock], g[kBlock];
#pragma unroll
      for (int s = 0; s < kBlock; ++s) {
        const bool there = j < count && base + s < n;
        r[s] = there ? T(ratio[(base + s) * kPoleStride + j]) : T(0);
        g[s] = there ? T(inverse[(base + s) * kPoleStride + j]) : T(0);
      }
#pragma unroll
      for (int t = 0; t < kBlock; ++t) {
        const int s = kDown ? t : kBlock - 1 - t;
        if constexpr (kDown) {
          state[q] = fma(r[s], state[q], g[s] * y_block[s]);
          sum[s] = sum[s] + state[q];
        } else {
          sum[s] = fma(g[s], state[q], sum[s]);
          state[q] = r[s] * (y_block[s] + state[q]);
        }
      }
    }
#pragma unroll
    for (int mask = kColumns; mask < kWarp; mask *= 2)
#pragma unroll
      for (int s = 0; s < kBlock; ++s) sum[s] = sum[s] + __shfl_xor_sync(kAllLanes, sum[s], mask);
    if (part != 0) continue;
#pragma unroll
    for (int s = 0; s < kBlock; ++s) z[(base + s) * kColumns + column] = z[(base + s) * kColumns + column] + sum[s];
  }
}

// z = sum_j w_j (T + a_j)^(-1) y for the columns of a warp, [N, kCount] in shared memory, zero beyond n.
//
// Row i of an inverse is row i - 1 times ratio[i], with inverse[i] on the diagonal. So its lower half times y is one
// recurrence downwards, its upper half one upwards, and the lanes of a column share the poles.
template <int N, typename T>
SVMAX_DEVICE void apply_inverse_sqrt(int n, int count, Global<const f64> ratio, Global<const f64> inverse,
                                     const Shared<T>& y, const Shared<T>& z) {
  for (int first = 0; first < count; first += Columns<N>::kPoles * Columns<N>::kLanes) {
    sweep<N, T, true>(n, first, count, ratio, inverse, y, z);
    sweep<N, T, false>(n, first, count, ratio, inverse, y, z);
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
  reflect_all<N>(y, reflectors, betas, n - 1, 1, -1, part);
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
  reflect_all<N>(y, reflectors, betas, 1, n - 1, 1, part);

  const f64 factor = plan[Factors::kFactor];
#pragma unroll
  for (int m = 0; m < C::kRows; ++m) {
    const int i = m * C::kLanes + part;
    if (i >= n || j >= n) continue;
    const f64 w = factor * f64(y[m]);
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
