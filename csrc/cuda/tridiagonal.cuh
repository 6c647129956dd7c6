// G = Q T Q' by Householder reflectors, in float64 (the first step of stage `spectral`).
//
// From the last row upwards. The rank-two update of one step and the matrix-vector product of the next share one pass
// over the matrix. Up to n = 128 the matrix stays in registers, and a step is latency: two barriers of the block, and
// none for a matrix of one warp. What would take a third one, every warp computes for itself.
#pragma once
#include "threads_of_matrix.cuh"

namespace svmax::cuda {

// T and what is needed on the way to it, in shared memory.
template <int N>
struct TridiagonalSpace {
  using L = Layout<N>;
  // On exit: T (off[i] couples i and i + 1; off[n - 1] = 0), and beta of the reflectors H_k = I - beta[k] u_k u_k'.
  Shared<f64> diagonal, off, beta;
  Shared<f64> p, row;                  // [N] a product, and a row of the matrix
  Shared<f64> x_rows, v_rows, w_rows;  // [N] vectors by the rows of each warp
  Shared<f64> partial, dots, found;    // [warps, N], [2 warps], [4]

  SVMAX_DEVICE explicit TridiagonalSpace(SharedMemory& memory) {
    diagonal = memory.take<f64>(L::kWide);
    off = memory.take<f64>(L::kWide);
    beta = memory.take<f64>(L::kWide);
    p = memory.take<f64>(L::kWide);
    row = memory.take<f64>(L::kWide);
    x_rows = memory.take<f64>(L::kWide);
    v_rows = memory.take<f64>(L::kWide);
    w_rows = memory.take<f64>(L::kWide);
    dots = memory.take<f64>(2 * L::kWarps);
    found = memory.take<f64>(4);
    partial = memory.take<f64>(L::kInRegisters && L::kWarps > 1 ? L::kWarps * N : 0);
  }
  static constexpr int bytes() {
    return 8 * shared_bytes<f64>(L::kWide) + shared_bytes<f64>(2 * L::kWarps) + shared_bytes<f64>(4) +
           shared_bytes<f64>(L::kInRegisters && L::kWarps > 1 ? L::kWarps * N : 0);
  }
};

// The reflector that maps a row with `square`, the sum of the squares before its last entry `pivot`, onto that entry.
struct Reflector {
  f64 off, beta, scale;

  SVMAX_DEVICE Reflector() {}
  SVMAX_DEVICE Reflector(f64 pivot, f64 square) : off(pivot), beta(0), scale(0) {
    if (square == 0) return;
    const f64 root = sqrt(fma(pivot, pivot, square)), norm = pivot > 0 ? -root : root;
    off = norm;
    beta = (norm - pivot) / norm;
    scale = 1 / (pivot - norm);
  }
};

// ---- in registers

// x[c] belongs to column lane + 32 c: entry `index` of that vector, in every lane.
template <int kColumns>
SVMAX_DEVICE f64 entry(const f64 (&x)[kColumns], int index) {
  f64 mine = x[0];
#pragma unroll
  for (int c = 1; c < kColumns; ++c) {
    const f64 candidate = in_register(x[c]);
    mine = index / kWarp == c ? candidate : mine;
  }
  return __shfl_sync(kAllLanes, mine, index % kWarp);
}

// a[r][c]: row warp + kWarps r, column lane + 32 c, zero beyond n; row[c]: row n - 1. Both are destroyed. reflectors
// [n, N]: row k is u_k (k entries, the last of them 1, zeros after), written where they are kept.
//
// A reflector is u = s x + e with x the row before its last entry, e the unit vector there, and s known once the norm
// of x is. So the product is taken with x, A u = s A x + A e, and a step has one sum over lanes where norm and product
// would have one each, and its square root and divisions beside the sums of other warps.
template <int N>
SVMAX_DEVICE void tridiagonalize(f64 (&a)[Layout<N>::kRows][Layout<N>::kColumns], f64 (&row)[Layout<N>::kColumns],
                                 int n, const TridiagonalSpace<N>& t, bool keep, Global<f64> reflectors) {
  constexpr int kRows = Layout<N>::kRows, kColumns = Layout<N>::kColumns, kWarps = Layout<N>::kWarps;
  constexpr bool kAlone = kWarps == 1;
  constexpr int kTogether = 4;  // rows
  const int lane = lane_index(), warp = Team<N>::warp(), thread = Team<N>::thread();
  // Vectors by the rows of this warp, written and read by this warp alone.
  const Shared<f64> x_rows = t.x_rows + warp * kRows, v_rows = t.v_rows + warp * kRows;
  const Shared<f64> w_rows = t.w_rows + warp * kRows;
  f64 x[kColumns], v[kColumns], w[kColumns];
#pragma unroll
  for (int c = 0; c < kColumns; ++c) v[c] = w[c] = 0;

  for (int k = n - 1; k >= 0; --k) {
    // Row k with the update A - v w' - w v' that is still pending; v[k] = 1.
    const f64 w_k = entry(w, k);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) x[c] = fma(-w_k, v[c], row[c] - w[c]);
    const f64 diagonal = entry(x, k);
    if (thread == 0) t.diagonal[k] = diagonal;
    if (k == 0) break;
    const f64 pivot = entry(x, k - 1);

    if constexpr (kAlone) __syncwarp();
    f64 square = 0, dot = 0, sum[kColumns] = {};
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int j = lane + kWarp * c;
      if (j >= k - 1) x[c] = 0;
      square = fma(x[c], x[c], square);
      if (j >= N || j % kWarps != warp) continue;
      x_rows[j / kWarps] = x[c];
      v_rows[j / kWarps] = v[c];
      w_rows[j / kWarps] = w[c];
    }
    __syncwarp();
#pragma unroll
    for (int r0 = 0; r0 < kRows; r0 += kTogether) {
      if (warp + kWarps * r0 >= k) continue;  // finished rows: in whole groups, so that reads can overlap
      f64 x_r[kTogether], v_r[kTogether], w_r[kTogether];
#pragma unroll
      for (int q = 0; q < kTogether; q += 2) {
        const Pair x_pair = load2(x_rows + r0 + q), v_pair = load2(v_rows + r0 + q), w_pair = load2(w_rows + r0 + q);
        x_r[q] = x_pair.x, x_r[q + 1] = x_pair.y;
        v_r[q] = v_pair.x, v_r[q + 1] = v_pair.y;
        w_r[q] = w_pair.x, w_r[q + 1] = w_pair.y;
      }
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        if (kWarp * c >= k) continue;  // finished columns
#pragma unroll
        for (int q = 0; q < kTogether; ++q) {
          const int r = r0 + q;
          const f64 value = fma(-w_r[q], v[c], fma(-v_r[q], w[c], a[r][c]));
          sum[c] = fma(value, x_r[q], sum[c]);
          a[r][c] = value;
          // The next step's row, and A e: a lane of a team of one warp has its own entry, other teams pass the row
          // around. Here, where the value is at hand: choosing a[k - 1][c] later puts the matrix in local memory.
          if (warp + kWarps * r != k - 1) continue;
          if constexpr (kAlone)
            row[c] = value;
          else
            t.row[lane + kWarp * c] = value;
        }
      }
    }
#pragma unroll
    for (int c = 0; c < kColumns; ++c) dot = fma(sum[c], x[c], dot);
    dot = warp_sum(dot);
    square = warp_sum(square);

    Reflector reflector;
    f64 last_sum, last_row;  // entry k - 1 of A x and of A e
    if constexpr (kAlone) {
      reflector = Reflector(pivot, square);
      last_sum = entry(sum, k - 1);
      last_row = entry(row, k - 1);
    } else {
      if (lane == 0) t.dots[warp] = dot;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) t.partial[warp * N + lane + kWarp * c] = sum[c];
      __syncthreads();
      if (thread < N) {
        f64 p = 0;
#pragma unroll 4
        for (int s = 0; s < kWarps; ++s) p = p + t.partial[s * N + thread];
        t.p[thread] = p;
      } else if (warp == kWarps - 1) {
        static_assert(N < Layout<N>::kThreads, "a warp must be free for the reflector");
        dot = 0;
#pragma unroll 4
        for (int s = 0; s < kWarps; ++s) dot = dot + t.dots[s];
        const Reflector found(pivot, square);
        if (lane == 0) {
          t.found[0] = found.off;
          t.found[1] = found.beta;
          t.found[2] = found.scale;
          t.found[3] = dot;
        }
      }
#pragma unroll
      for (int c = 0; c < kColumns; ++c) row[c] = kWarp * c < k ? f64(t.row[lane + kWarp * c]) : f64(0);
      last_row = t.row[k - 1];
      __syncthreads();
#pragma unroll
      for (int c = 0; c < kColumns; ++c) sum[c] = t.p[lane + kWarp * c];
      last_sum = t.p[k - 1];
      reflector.off = t.found[0];
      reflector.beta = t.found[1];
      reflector.scale = t.found[2];
      dot = t.found[3];
    }
    const f64 beta = reflector.beta, scale = reflector.scale;
    if (thread == 0) {
      t.off[k - 1] = reflector.off;
      t.beta[k] = beta;
    }
    // u'A u = s^2 x'A x + 2 s e'A x + e'A e
    const f64 half = 0.5 * beta * beta * fma(scale, fma(scale, dot, last_sum + last_sum), last_row);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int j = lane + kWarp * c;
      v[c] = j == k - 1 ? f64(1) : x[c] * scale;
      w[c] = j < k ? fma(beta, fma(scale, sum[c], row[c]), -half * v[c]) : f64(0);
      if (keep && warp == 0 && j < N) reflectors[k * N + j] = v[c];
    }
  }
  if (thread == 0) {
    t.off[n - 1] = 0;
    t.beta[0] = 0;
  }
  Team<N>::sync();
}

// ---- in memory

// a [n, n], shared or global, is destroyed. Four barriers a step: the sums over rows come from warps, one row at a
// time.
template <int N, typename Matrix>
SVMAX_DEVICE void tridiagonalize(const Matrix& a, int n, const TridiagonalSpace<N>& t, bool keep,
                                 Global<f64> reflectors) {
  constexpr int kWarps = Layout<N>::kWarps, kThreads = Layout<N>::kThreads;
  const int lane = lane_index(), warp = Team<N>::warp(), thread = Team<N>::thread();
  const Shared<f64> w = t.w_rows, p = t.p, ends = t.row;  // ends: two entries of the row
  for (int j = thread; j < n; j += kThreads) w[j] = t.x_rows[j] = t.v_rows[j] = f64(0);
  __syncthreads();
  for (int k = n - 1; k >= 0; --k) {
    const Shared<f64> u = k % 2 == 0 ? t.x_rows : t.v_rows, v = k % 2 == 0 ? t.v_rows : t.x_rows;
    f64 square = 0;
    const f64 w_k = w[k];
    for (int j = thread; j <= k; j += kThreads) {
      const f64 x = fma(-w_k, v[j], a[int64_t(k) * n + j] - w[j]);
      if (j >= k - 1) ends[j == k] = x;
      if (j < k - 1) square = fma(x, x, square);
      u[j] = x;
    }
    square = warp_sum(square);
    if (lane == 0) t.dots[warp] = square;
    __syncthreads();
    square = 0;
    for (int s = 0; s < kWarps; ++s) square = square + t.dots[s];
    if (thread == 0) t.diagonal[k] = ends[1];
    if (k == 0) break;
    const Reflector reflector(ends[0], square);
    const f64 beta = reflector.beta;
    if (thread == 0) {
      t.off[k - 1] = reflector.off;
      t.beta[k] = beta;
    }
    for (int j = thread; j < N; j += kThreads) {
      const f64 x = j < k - 1 ? u[j] * reflector.scale : f64(j == k - 1 ? 1 : 0);
      u[j] = x;
      if (keep) reflectors[int64_t(k) * N + j] = x;
    }
    __syncthreads();
    f64 dot = 0;
    for (int i = warp; i < k; i += kWarps) {
      const f64 v_i = v[i], w_i = w[i];
      const Matrix row = a + int64_t(i) * n;
      f64 sum = 0;
      for (int j = lane; j < k; j += kWarp) {
        const f64 x = fma(-w_i, v[j], fma(-v_i, w[j], row[j]));
        row[j] = x;
        sum = fma(x, u[j], sum);
      }
      sum = warp_sum(sum);
      if (lane == 0) p[i] = sum;
      dot = fma(sum, u[i], dot);
    }
    if (lane == 0) t.dots[kWarps + warp] = dot;
    __syncthreads();
    dot = 0;
    for (int s = 0; s < kWarps; ++s) dot = dot + t.dots[kWarps + s];
    const f64 half = 0.5 * beta * beta * dot;
    for (int j = thread; j < n; j += kThreads) w[j] = j < k ? fma(beta, p[j], -half * u[j]) : f64(0);
    __syncthreads();
  }
  if (thread == 0) {
    t.off[n - 1] = 0;
    t.beta[0] = 0;
  }
  __syncthreads();
}

}  // namespace svmax::cuda
