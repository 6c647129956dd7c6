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

// dl/d(value), one number a matrix, in either type.
struct Grads {
  bool is_float64;
  Global<const f32> as_f32;
  Global<const f64> as_f64;
  Strides strides;

  static Grads of_float32(Global<const f32> grads, const Strides& strides) { return {false, grads, {}, strides}; }
  static Grads of_float64(Global<const f64> grads, const Strides& strides) { return {true, {}, grads, strides}; }
  SVMAX_DEVICE f64 operator[](int64_t matrix) const {
    const int64_t at = strides.offset(matrix);
    return is_float64 ? f64(as_f64[at]) : f64(f32(as_f32[at]));
  }
};

struct BackwardOptions {
  Grads grads;
  Global<const f64> weight;       // [matrices, n, n]
  Global<const bool> in_float32;  // [matrices] W's precision
  Global<const f64> row_norms;    // [matrices, b] when normalised
  Global<const f64> mean;         // [matrices, d] when centred
};

// Between two columns of the block's rows in shared memory: padded, so that a warp can write a row of it with few bank
// conflicts, and even, so that pairs stay aligned.
template <int kBlockColumns>
constexpr int kLeftStride = kBlockRows<kBlockColumns> + 2;

template <int kBlockColumns>
constexpr int64_t backward_shared_bytes(int64_t n, int64_t d) {
  return (n * kLeftStride<kBlockColumns> + kChunk * kBlockColumns + (d + 1) * kBlockRows<kBlockColumns>)*8;
}

// One matrix's E, entry by entry, from entries of x.
template <typename scalar_t>
struct EntriesOfE {
  const Rows<scalar_t>& rows;
  Global<const scalar_t> x;
  Global<const f64> row_norms, mean;  // of this matrix

  SVMAX_DEVICE f64 normalized(f64 value, f64 norm) const { return rows.normalize ? Normalizer(norm)(value) : value; }
  SVMAX_DEVICE f64 e(f64 value, int j, f64 norm) const {
    return rows.center ? normalized(value, norm) - mean[j] : normalized(value, norm);
  }
};

// g [rows, d]: the block's rows, `count` from `first` on, of dl/dE = E W (tall) or W E (wide), the products taken in T.
template <typename T, int kBlockColumns, typename scalar_t>
SVMAX_DEVICE void multiply(const EntriesOfE<scalar_t>& entries, Global<const f64> w, int first, int count,
                           const Shared<f64>& norms, const Shared<f64>& g, SharedMemory memory) {
  constexpr int kRows = kBlockRows<kBlockColumns>, kStride = kLeftStride<kBlockColumns>, kEach = 4;
  const Rows<scalar_t>& rows = entries.rows;
  const Global<const scalar_t> x = entries.x;
  const int b = int(rows.b), d = int(rows.d), n = b < d ? b : d, thread = int(threadIdx.x);
  const bool tall = is_tall(b, d, rows.center);
  // The block's rows of E (tall) or W as columns, rows of W (tall) or E.
  const Shared<T> left = memory.take<T>(n * kStride), right = memory.take<T>(kChunk * kBlockColumns);
  for (int at = thread; at < n * kRows; at += kBackwardThreads) {
    const int k = at % n, i = at / n;
    f64 value = 0;
    if (i < count) value = tall ? entries.e(rows.at(x, first + i, k), k, norms[i]) : f64(w[int64_t(first + i) * n + k]);
    left[k * kStride + i] = T(value);
  }
  __syncthreads();

  const int i0 = thread / kBlockColumns * kEach, mine = thread % kBlockColumns;
  for (int j0 = 0; j0 < d; j0 += kBlockColumns) {
    f64 sum[kEach] = {};
    for (int k0 = 0; k0 < n; k0 += kChunk) {
      const int terms = n - k0 < kChunk ? n - k0 : kChunk;
      // All reads first, and none behind a branch, so that they overlap; see pack_e_tile in gram.cuh.
#pragma unroll
      for (int at = thread; at < kChunk * kBlockColumns; at += kBackwardThreads) {
        const int k = k0 + at / kBlockColumns, j = j0 + at % kBlockColumns;
        const int row = k < n ? k : n - 1, column = j < d ? j : d - 1;
        right[at] = T(tall ? f64(w[int64_t(row) * n + column]) : rows.at(x, row, column));
      }
      for (int at = thread; at < kChunk * kBlockColumns; at += kBackwardThreads) {
        const int k = k0 + at / kBlockColumns, j = j0 + at % kBlockColumns;
        if (k >= n || j >= d)
          right[at] = T(0);
        else if (!tall)
          right[at] = T(entries.e(f64(T(right[at])), j, rows.normalize ? f64(entries.row_norms[k]) : f64(1)));
      }
      __syncthreads();
      if constexpr (sizeof(T) < sizeof(f64)) {
        T part[kEach] = {};
        for (int k = 0; k < terms; ++k) {
          const T factor = right[k * kBlockColumns + mine];
#pragma unroll
          for (int r = 0; r < kEach; ++r) part[r] = fma(T(left[(k0 + k) * kStride + i0 + r]), factor, part[r]);
        }
#pragma unroll
        for (int r = 0; r < kEach; ++r) sum[r] = sum[r] + f64(part[r]);
      } else {
        for (int k = 0; k < terms; ++k) {
          const f64 factor = right[k * kBlockColumns + mine];
#pragma unroll
          for (int r = 0; r < kEach; r += 2) {
            const Pair pair = load2(left + (k0 + k) * kStride + i0 + r);
            sum[r] = fma(pair.x, factor, sum[r]);
            sum[r + 1] = fma(pair.y, factor, sum[r + 1]);
          }
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < kEach; ++r)
      if (j0 + mine < d) g[(i0 + r) * d + j0 + mine] = sum[r];
  }
  __syncthreads();
}

// grid (ceil(b / kBlockRows), matrices). dx [matrices, b, d], contiguous.
template <typename scalar_t, int kBlockColumns>
SVMAX_KERNEL(kBackwardThreads, 2)
backward_kernel(Rows<scalar_t> rows, BackwardOptions options, Global<scalar_t> dx) {
  constexpr int kRows = kBlockRows<kBlockColumns>;
  const int b = int(rows.b), d = int(rows.d), n = b < d ? b : d, thread = int(threadIdx.x);
  const int64_t matrix = blockIdx.y;
  SharedMemory memory;
  const Shared<f64> g = memory.take<f64>(kRows * d);  // [rows, d]: dl/dE
  const Shared<f64> norms = memory.take<f64>(kRows);
  const Global<const scalar_t> x = rows.matrix(matrix);
  const EntriesOfE<scalar_t> entries{rows, x, rows.normalize ? options.row_norms + matrix * b : options.row_norms,
                                     rows.center ? options.mean + matrix * d : options.mean};
  const int first = int(blockIdx.x) * kRows, count = b - first < kRows ? b - first : kRows;
  if (thread < kRows)
    norms[thread] = rows.normalize && thread < count ? f64(entries.row_norms[first + thread]) : f64(1);
  __syncthreads();

  // float64 x has digits that float32 products would lose, and so has W where its mean row was taken off.
  const Global<const f64> w = options.weight + matrix * n * n;
  const bool needs_float64 = sizeof(scalar_t) == sizeof(double) || (rows.center && !is_tall(b, d, rows.center));
  if (!needs_float64 && options.in_float32[matrix])
    multiply<f32, kBlockColumns>(entries, w, first, count, norms, g, memory);
  else
    multiply<f64, kBlockColumns>(entries, w, first, count, norms, g, memory);

  // dx = (g - (g.e) e) / |x|: the projection is on the row before centring. One warp a row.
  const f64 grad = options.grads[rows.first + matrix];
  for (int i = warp_index(); i < count; i += kBackwardThreads / kWarp) {
    const Global<scalar_t> out = dx + (matrix * b + first + i) * d;
    const f64 norm = norms[i];
    f64 along = 0, factor = grad;
    if (rows.normalize) {
      for (int j = lane_index(); j < d; j += kWarp)
        along = fma(g[i * d + j], entries.normalized(rows.at(x, first + i, j), norm), along);
      along = warp_sum(along);
      factor = grad / norm;
    }
    for (int j = lane_index(); j < d; j += kWarp) {
      f64 value = g[i * d + j];
      if (rows.normalize) value = fma(-along, entries.normalized(rows.at(x, first + i, j), norm), value);
      value = value * factor;
      // A zero row has no direction: its gradient is zero by contract. Written ==, so that a NaN norm makes it NaN.
      out[j] = from_f64<scalar_t>(rows.normalize && norm == 0 ? f64(0) : value);
    }
  }
}

}  // namespace svmax::cuda
