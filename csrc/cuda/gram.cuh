// Stage `gram`: G = E'E (tall) or EE' (wide: is_tall) in float64, from X in its own type.
//
// One block a tile of the lower half of G and a part of the sum, so that one matrix keeps many multiprocessors busy;
// the parts are added by whoever reads G, always in the same order.
#pragma once
#include "rows.cuh"

namespace svmax::cuda {

constexpr int kTile = 32;  // rows and columns of a tile
constexpr int kGramThreads = 256;
// Terms of a sum in one go. The totals of such sums are added: at rank one the rounding of one long sum would show.
constexpr int kGramDepth = 64;
constexpr int kTileRow = kTile + 1;  // padded, so that a warp can write a column of it without bank conflicts

constexpr int gram_shared_bytes() {
  return 2 * shared_bytes<f64>(kGramDepth * kTileRow) + shared_bytes<f64>(kGramDepth) + 2 * shared_bytes<f64>(kTile);
}

struct GramOptions {
  Global<f64> partial;      // [matrices, splits, n, n]
  Global<f64> row_norms;    // [matrices, b]: written here, but read when centred
  Global<const f64> mean;   // [matrices, d] when centred
  int64_t terms_per_split;  // a multiple of kGramDepth
};

// e[k * kTileRow + i] = E's entry k of the sum for row i of the tile: of column first + i when tall, else of row
// first + i.
template <typename scalar_t>
SVMAX_DEVICE void pack_e_tile(const Rows<scalar_t>& rows, Global<const scalar_t> x, bool tall, int64_t first,
                              int64_t begin, int count, const Shared<f64>& norms, Global<const f64> mean,
                              const Shared<f64>& e) {
  constexpr int kTogether = 4;
  const int64_t n = tall ? rows.d : rows.b;
  // A few reads at a time before anything is done with them, and none behind a branch, so that they overlap: a division
  // would keep the next one waiting. What lies outside is read from the nearest place inside, and not used.
#pragma unroll 1
  for (int at0 = int(threadIdx.x); at0 < kGramDepth * kTile; at0 += kTogether * kGramThreads) {
#pragma unroll
    for (int at = at0; at < at0 + kTogether * kGramThreads; at += kGramThreads) {
      // Neighbouring lanes read neighbouring columns of X in both cases.
      const int i = tall ? at % kTile : at / kGramDepth, k = tall ? at / kTile : at % kGramDepth;
      const int64_t outer = first + i < n ? first + i : n - 1, inner = begin + (k < count ? k : count - 1);
      const f64 value = rows.at(x, tall ? inner : outer, tall ? outer : inner);
      e[k * kTileRow + i] = k < count && first + i < n ? value : f64(0);
    }
  }
  if (!rows.normalize && !rows.center) return;
  for (int at = int(threadIdx.x); at < kGramDepth * kTile; at += kGramThreads) {  // each thread its own ones again
    const int i = tall ? at % kTile : at / kGramDepth, k = tall ? at / kTile : at % kGramDepth;
    if (k >= count || first + i >= n) continue;
    f64 value = e[k * kTileRow + i];
    if (rows.normalize) value = Normalizer(norms[tall ? k : i])(value);
    // Mean first, then products: G - b mean mean' cancels at collapse.
    if (rows.center) value = value - mean[tall ? first + i : begin + k];
    e[k * kTileRow + i] = value;
  }
}

// grid (lower tiles, splits, matrices)
template <typename scalar_t>
SVMAX_KERNEL(kGramThreads, 2)
gram_kernel(Rows<scalar_t> rows, GramOptions options) {
  constexpr int kSide = 16, kEach = kTile / kSide;  // 16 x 16 threads with 2 x 2 sums each
  SharedMemory memory;
  const Shared<f64> e_rows = memory.take<f64>(kGramDepth * kTileRow);
  const Shared<f64> own_columns = memory.take<f64>(kGramDepth * kTileRow);
  const Shared<f64> norms_of_terms = memory.take<f64>(kGramDepth);
  const Shared<f64> norms_of_rows = memory.take<f64>(kTile), norms_of_columns = memory.take<f64>(kTile);

  int tile_row = 0, tile_column = int(blockIdx.x);
  while (tile_column > tile_row) tile_column -= ++tile_row;
  const bool tall = is_tall(rows.b, rows.d, rows.center), diagonal = tile_row == tile_column;
  const int64_t n = tall ? rows.d : rows.b, terms = tall ? rows.b : rows.d, matrix = blockIdx.z;
  const int64_t first_row = int64_t(tile_row) * kTile, first_column = int64_t(tile_column) * kTile;
  const Global<const scalar_t> x = rows.matrix(matrix);
  const Global<const f64> mean = rows.center ? options.mean + matrix * rows.d : options.mean;

  // The norm of row i of X, taken by one warp; whoever comes first in the grid keeps it for the backward.
  const auto norm_of = [&](int64_t i, bool keep) {
    if (rows.center) return f64(options.row_norms[matrix * rows.b + i]);  // mean_kernel took it
    const f64 norm = row_norm(rows, x, i);
    if (keep && lane_index() == 0) options.row_norms[matrix * rows.b + i] = norm;
    return norm;
  };
  if (rows.normalize && !tall) {
    for (int i = warp_index(); i < 2 * kTile; i += kGramThreads / kWarp) {
      const int64_t row = (i < kTile ? first_row : first_column) + i % kTile;
      if (row >= rows.b) continue;
      const f64 norm = norm_of(row, diagonal && i < kTile && blockIdx.y == 0);
      if (lane_index() == 0) (i < kTile ? norms_of_rows : norms_of_columns)[i % kTile] = norm;
    }
    __syncthreads();
  }

  const int i0 = int(threadIdx.x) / kSide, j0 = int(threadIdx.x) % kSide;
  f64 total[kEach][kEach] = {};
  const int64_t begin = int64_t(blockIdx.y) * options.terms_per_split;
  const int64_t end = begin + options.terms_per_split < terms ? begin + options.terms_per_split : terms;
  for (int64_t at = begin; at < end; at += kGramDepth) {
    const int count = int(end - at < kGramDepth ? end - at : kGramDepth);
    if (rows.normalize && tall) {
      for (int k = warp_index(); k < count; k += kGramThreads / kWarp) {
        const f64 norm = norm_of(at + k, blockIdx.x == 0);
        if (lane_index() == 0) norms_of_terms[k] = norm;
      }
      __syncthreads();
    }
    pack_e_tile(rows, x, tall, first_row, at, count, tall ? norms_of_terms : norms_of_rows, mean, e_rows);
    if (!diagonal)
      pack_e_tile(rows, x, tall, first_column, at, count, tall ? norms_of_terms : norms_of_columns, mean, own_columns);
    __syncthreads();
    const Shared<f64> e_columns = diagonal ? e_rows : own_columns;
    f64 sum[kEach][kEach] = {};
#pragma unroll 8
    for (int k = 0; k < kGramDepth; ++k) {
      f64 a[kEach], b[kEach];
      for (int p = 0; p < kEach; ++p) {
        a[p] = e_rows[k * kTileRow + i0 + p * kSide];
        b[p] = e_columns[k * kTileRow + j0 + p * kSide];
      }
      for (int p = 0; p < kEach; ++p)
        for (int q = 0; q < kEach; ++q) sum[p][q] = fma(a[p], b[q], sum[p][q]);
    }
    for (int p = 0; p < kEach; ++p)
      for (int q = 0; q < kEach; ++q) total[p][q] = total[p][q] + sum[p][q];
    __syncthreads();
  }

  const Global<f64> out = options.partial + (matrix * gridDim.y + blockIdx.y) * n * n;
  for (int p = 0; p < kEach; ++p) {
    for (int q = 0; q < kEach; ++q) {
      const int64_t i = first_row + i0 + p * kSide, j = first_column + j0 + q * kSide;
      if (i >= n || j >= n) continue;
      out[i * n + j] = total[p][q];
      if (!diagonal) out[j * n + i] = total[p][q];
    }
  }
}

// Gram matrices that lie as their parts.
struct Parts {
  Global<const f64> partial;  // [matrices, splits, n, n]
  int splits, n;

  SVMAX_DEVICE Global<const f64> first(int64_t matrix) const { return partial + matrix * splits * n * n; }
  // Entry `index` of a matrix, whose first part is given.
  SVMAX_DEVICE f64 sum(Global<const f64> part, int64_t index) const {
    f64 total = part[index];
    for (int s = 1; s < splits; ++s) total = total + part[int64_t(s) * n * n + index];
    return total;
  }
};

constexpr int kSumThreads = 256;

// The sum of the parts, for the op that returns G. grid (ceil(n n / threads), matrices)
SVMAX_KERNEL(kSumThreads, 2)
sum_kernel(Parts parts, Global<f64> gram) {
  const int64_t at = int64_t(blockIdx.x) * kSumThreads + int(threadIdx.x), size = int64_t(parts.n) * parts.n;
  const int64_t matrix = blockIdx.y;
  if (at < size) gram[matrix * size + at] = parts.sum(parts.first(matrix), at);
}

}  // namespace svmax::cuda
