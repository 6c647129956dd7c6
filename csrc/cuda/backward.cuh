// Stage `backward`: dX from the polar factor P = E W (tall) or W E (wide: is_tall), with the row projection in one
// kernel.
#pragma once
#include "rows.cuh"

namespace svmax::cuda {

constexpr int kBackwardThreads = 256;
constexpr int kChunk = 16;  // terms of the product at a time

// The part of dX that a block makes: a thread has four rows of a column. Narrow matrices would leave lanes idle that
// wait for columns; they get more rows instead.
template <int kBlockColumns>
constexpr int kBlockRows = 4 * kBackwardThreads / kBlockColumns;

struct BackwardOptions {
  Global<const f32> grad;    // one number a matrix; or
  Global<const f64> grad64;  // the same in float64
  Strides grads;
  Global<const f64> weight;     // [matrices, n, n]
  Global<const f64> row_norms;  // [matrices, b] when normalised
  Global<const f64> mean;       // [matrices, d] when centred
};

// Between two columns of the block's rows in shared memory: padded, so that a warp can write a row of it with few bank
// conflicts, and even, so that pairs stay aligned.
template <int kBlockColumns>
constexpr int kLeftStride = kBlockRows<kBlockColumns> + 2;

template <int kBlockColumns>
constexpr int64_t backward_shared_bytes(int64_t n, int64_t d) {
  const int64_t left = n * kLeftStride<kBlockColumns>, right = kChunk * kBlockColumns;
  return left * 8 + (left * 4 + 15) / 16 * 16 + right * 12 + (d + 1) * kBlockRows<kBlockColumns> * 8;
}

// grid (ceil(b / kBlockRows), matrices). dx [matrices, b, d], contiguous.
template <typename scalar_t, int kBlockColumns>
SVMAX_KERNEL(kBackwardThreads, 2)
backward_kernel(Rows<scalar_t> rows, BackwardOptions options, Global<scalar_t> dx) {
  constexpr int kRows = kBlockRows<kBlockColumns>, kStride = kLeftStride<kBlockColumns>, kEach = 4;
  const int b = int(rows.b), d = int(rows.d), n = b < d ? b : d, thread = int(threadIdx.x);
  const bool tall = is_tall(b, d, rows.center);
  const int64_t matrix = blockIdx.y;
  SharedMemory memory;
  // The block's rows of E (tall) or W as columns, rows of W (tall) or E; both in float32 too, for where that will do.
  const Shared<f64> left = memory.take<f64>(n * kStride), right = memory.take<f64>(kChunk * kBlockColumns);
  const Shared<f32> left32 = memory.take<f32>(n * kStride), right32 = memory.take<f32>(kChunk * kBlockColumns);
  const Shared<f64> g = memory.take<f64>(kRows * d);  // [rows, d]: dl/dE
  const Shared<f64> norms = memory.take<f64>(kRows);

  const Global<const scalar_t> x = rows.matrix(matrix);
  const Global<const f64> w = options.weight + matrix * n * n;
  const Global<const f64> row_norms = rows.normalize ? options.row_norms + matrix * b : options.row_norms;
  const Global<const f64> mean = rows.center ? options.mean + matrix * d : options.mean;
  const auto normalized = [&](f64 value, f64 norm) { return rows.normalize ? Normalizer(norm)(value) : value; };
  const auto embedding = [&](f64 value, int j, f64 norm) {
    return rows.center ? normalized(value, norm) - mean[j] : normalized(value, norm);
  };

  const int first = int(blockIdx.x) * kRows, count = b - first < kRows ? b - first : kRows;
  if (thread < kRows) norms[thread] = rows.normalize && thread < count ? f64(row_norms[first + thread]) : f64(1);
  __syncthreads();
  for (int at = thread; at < n * kRows; at += kBackwardThreads) {
    const int k = at % n, i = at / n;
    f64 value = 0;
    if (i < count) value = tall ? embedding(rows.at(x, first + i, k), k, norms[i]) : f64(w[int64_t(first + i) * n + k]);
    left[k * kStride + i] = value;
    left32[k * kStride + i] = f32(value);
  }
  __syncthreads();

  const int i0 = thread / kBlockColumns * kEach, mine = thread % kBlockColumns;
  for (int j0 = 0; j0 < d; j0 += kBlockColumns) {
    f64 sum[kEach] = {};
    for (int k0 = 0; k0 < n; k0 += kChunk) {
      const int terms = n - k0 < kChunk ? n - k0 : kChunk;
      // spectral.cuh has W be float32 numbers where float32 products are good enough. Never for float64 input.
      bool narrow = sizeof(scalar_t) < sizeof(double);
      // All reads first, and none behind a branch, so that they overlap; see load_terms in gram.cuh.
#pragma unroll
      for (int at = thread; at < kChunk * kBlockColumns; at += kBackwardThreads) {
        const int k = k0 + at / kBlockColumns, j = j0 + at % kBlockColumns;
        const int row = k < n ? k : n - 1, column = j < d ? j : d - 1;
        right[at] = tall ? f64(w[int64_t(row) * n + column]) : rows.at(x, row, column);
      }
      for (int at = thread; at < kChunk * kBlockColumns; at += kBackwardThreads) {
        const int k = k0 + at / kBlockColumns, j = j0 + at % kBlockColumns;
        f64 value = k < n && j < d ? f64(right[at]) : f64(0);
        if (tall)
          narrow = narrow && f64(f32(value)) == value;
        else if (k < n && j < d)
          value = embedding(value, j, rows.normalize ? f64(row_norms[k]) : f64(1));
        right[at] = value;
        right32[at] = f32(value);
      }
      if (!tall) {
        for (int at = k0 * kStride + thread; at < (k0 + terms) * kStride; at += kBackwardThreads)
          narrow = narrow && (at % kStride >= kRows || f64(left32[at]) == left[at]);
      }
      if (__syncthreads_and(narrow)) {
        f32 part[kEach] = {};
        for (int k = 0; k < terms; ++k) {
          const f32 factor = right32[k * kBlockColumns + mine];
#pragma unroll
          for (int e = 0; e < kEach; ++e) part[e] = fma(f32(left32[(k0 + k) * kStride + i0 + e]), factor, part[e]);
        }
#pragma unroll
        for (int e = 0; e < kEach; ++e) sum[e] = sum[e] + f64(part[e]);
      } else {
        for (int k = 0; k < terms; ++k) {
          const f64 factor = right[k * kBlockColumns + mine];
#pragma unroll
          for (int e = 0; e < kEach; e += 2) {
            const Pair pair = load2(left + (k0 + k) * kStride + i0 + e);
            sum[e] = fma(pair.x, factor, sum[e]);
            sum[e + 1] = fma(pair.y, factor, sum[e + 1]);
          }
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int e = 0; e < kEach; ++e)
      if (j0 + mine < d) g[(i0 + e) * d + j0 + mine] = sum[e];
  }
  __syncthreads();

  // dx = (g - (g.e) e) / |x|: the projection is on the row before centring. One warp a row.
  const int64_t grad_at = options.grads.offset(rows.first + matrix);
  const f64 grad = options.grad != nullptr ? f64(f32(options.grad[grad_at])) : f64(options.grad64[grad_at]);
  for (int i = warp_index(); i < count; i += kBackwardThreads / kWarp) {
    const Global<scalar_t> out = dx + (matrix * b + first + i) * d;
    const f64 norm = norms[i];
    f64 along = 0, factor = grad;
    if (rows.normalize) {
      for (int j = lane_index(); j < d; j += kWarp)
        along = fma(g[i * d + j], normalized(rows.at(x, first + i, j), norm), along);
      along = warp_sum(along);
      factor = grad / norm;
    }
    for (int j = lane_index(); j < d; j += kWarp) {
      f64 value = g[i * d + j];
      if (rows.normalize) value = fma(-along, normalized(rows.at(x, first + i, j), norm), value);
      value = value * factor;
      // A zero row has no direction: its gradient is zero by contract. Written ==, so that a NaN norm makes it NaN.
      out[j] = from_f64<scalar_t>(rows.normalize && norm == 0 ? f64(0) : value);
    }
  }
}

}  // namespace svmax::cuda
