// Rows of the input, read in their own type and made float64: norm, mean, normalisation, centring.
#pragma once
#include "../matrix_view.h"
#include "device.cuh"

namespace svmax::cuda {

// Where the matrices of a batch begin, in elements. More dimensions than these are made contiguous first.
struct Strides {
  static constexpr int kMost = 4;
  int count;
  int64_t size[kMost], stride[kMost];

  SVMAX_DEVICE int64_t offset(int64_t index) const {
    int64_t at = 0;
#pragma unroll
    for (int i = kMost - 1; i >= 0; --i) {  // constant indices: a run-time one would put the arrays in local memory
      if (i >= count) continue;
      at += index % size[i] * stride[i];
      index /= size[i];
    }
    return at;
  }
};

// x [..., b, d], any strides (in elements); E is what the options make of it.
template <typename scalar_t>
struct Rows {
  Global<const scalar_t> x;
  int64_t b, d, row_stride, column_stride;
  Strides batch;
  int64_t first;  // matrix of the batch that a launch begins with
  bool normalize, center;

  SVMAX_DEVICE Global<const scalar_t> matrix(int64_t index) const { return x + batch.offset(first + index); }
  SVMAX_DEVICE f64 at(Global<const scalar_t> matrix, int64_t i, int64_t j) const {
    const scalar_t element = matrix[i * row_stride + j * column_stride];
    return to_f64(element);
  }
};

// |x_i| in every lane of the warp that calls it.
template <typename scalar_t>
SVMAX_DEVICE f64 row_norm(const Rows<scalar_t>& rows, Global<const scalar_t> matrix, int64_t i) {
  f64 square = 0;
  for (int64_t j = lane_index(); j < rows.d; j += kWarp) {
    const f64 x = rows.at(matrix, i, j);
    square = fma(x, x, square);
  }
  square = warp_sum(square);
  // Squares of float64 numbers can leave the range where those of narrower types cannot; then once more, scaled.
  if (sizeof(scalar_t) < sizeof(double) || (square > 1e-280 && square < 1e280)) return sqrt(square);
  f64 largest = 0;
  for (int64_t j = lane_index(); j < rows.d; j += kWarp) largest = larger_or_nan(largest, fabs(rows.at(matrix, i, j)));
  largest = warp_max(largest);
  if (largest == 0 || !(largest < INFINITY)) return largest;
  square = 0;
  for (int64_t j = lane_index(); j < rows.d; j += kWarp) {
    const f64 x = rows.at(matrix, i, j) / largest;
    square = fma(x, x, square);
  }
  return largest * sqrt(warp_sum(square));
}

// The norm that a row is divided by, as a factor where that is exact enough. A zero row stays zero.
struct Normalizer {
  f64 norm, factor;

  SVMAX_DEVICE explicit Normalizer(f64 row_norm) : norm(row_norm), factor(norm > 1e-300 ? 1 / norm : f64(0)) {}
  SVMAX_DEVICE f64 operator()(f64 x) const {
    if (norm == 0) return x;
    // The reciprocal of a tiny norm would overflow. Written so that a NaN norm makes the row NaN.
    return norm <= 1e-300 ? x / norm : x * (norm > 1e-300 ? factor : norm);
  }
};

// The mean of the (normalised) rows: one block for kWarp columns of one matrix. Writes the row norms too.
constexpr int kMeanWarps = 8, kMeanRows = 256;

constexpr int mean_shared_bytes() { return shared_bytes<f64>(kMeanRows) + shared_bytes<f64>(kMeanWarps * kWarp); }

// grid (ceil(d / 32), matrices); row_norms [matrices, b] (when normalised), mean [matrices, d].
template <typename scalar_t>
SVMAX_KERNEL(kMeanWarps* kWarp, 2)
mean_kernel(Rows<scalar_t> rows, Global<f64> row_norms, Global<f64> mean) {
  SharedMemory memory;
  const Shared<f64> norms = memory.take<f64>(kMeanRows), partial = memory.take<f64>(kMeanWarps * kWarp);
  const int64_t matrix = blockIdx.y;
  const Global<const scalar_t> x = rows.matrix(matrix);
  const int64_t column = int64_t(blockIdx.x) * kWarp + lane_index();
  f64 sum = 0;
  for (int64_t begin = 0; begin < rows.b; begin += kMeanRows) {
    const int count = int(rows.b - begin < kMeanRows ? rows.b - begin : kMeanRows);
    if (rows.normalize) {
      for (int i = warp_index(); i < count; i += kMeanWarps) {
        const f64 norm = row_norm(rows, x, begin + i);
        if (lane_index() != 0) continue;
        norms[i] = norm;
        if (blockIdx.x == 0) row_norms[matrix * rows.b + begin + i] = norm;
      }
    }
    __syncthreads();
    if (column < rows.d) {
      for (int i = warp_index(); i < count; i += kMeanWarps) {
        const f64 value = rows.at(x, begin + i, column);
        sum = sum + (rows.normalize ? Normalizer(norms[i])(value) : value);
      }
    }
    __syncthreads();
  }
  partial[int(threadIdx.x)] = sum;
  __syncthreads();
  if (warp_index() != 0 || column >= rows.d) return;
  f64 total = 0;
  for (int w = 0; w < kMeanWarps; ++w) total = total + partial[w * kWarp + lane_index()];
  mean[matrix * rows.d + column] = total / f64(double(rows.b));
}

// E as a matrix of its own, for what no block holds: the same bits that gram_kernel and backward_kernel work with.
constexpr int kPackWarps = 8;

struct PackOptions {
  Global<f64> row_norms;   // [matrices, b] when normalised
  bool norms_given;        // read row_norms, do not write them
  Global<const f64> mean;  // [matrices, d] when centred
};

// grid (ceil(b / kPackWarps), matrices); normalized, e [matrices, b, d]: without and with the mean row taken off. One
// and the same where rows are not centred.
template <typename scalar_t>
SVMAX_KERNEL(kPackWarps* kWarp, 2)
pack_e_kernel(Rows<scalar_t> rows, PackOptions options, Global<f64> normalized, Global<f64> e) {
  const int64_t i = int64_t(blockIdx.x) * kPackWarps + warp_index(), matrix = blockIdx.y;
  if (i >= rows.b) return;
  const Global<const scalar_t> x = rows.matrix(matrix);
  f64 norm = 1;
  if (rows.normalize) {
    norm = options.norms_given ? f64(options.row_norms[matrix * rows.b + i]) : row_norm(rows, x, i);
    if (!options.norms_given && lane_index() == 0) options.row_norms[matrix * rows.b + i] = norm;
  }
  const Normalizer normalizer(norm);
  for (int64_t j = lane_index(); j < rows.d; j += kWarp) {
    const int64_t at = (matrix * rows.b + i) * rows.d + j;
    const f64 value = rows.normalize ? normalizer(rows.at(x, i, j)) : rows.at(x, i, j);
    normalized[at] = value;
    if (rows.center) e[at] = value - options.mean[matrix * rows.d + j];
  }
}

}  // namespace svmax::cuda
