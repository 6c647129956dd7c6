// Stage `gram`: G = E'E (b >= d) or EE' (b < d) in float64, from X in its own type.
//
// The product of two float32 numbers is exact in float64, so a float64 Gram matrix is as good as a float32 SVD; a
// float32 one loses the small singular values just where the regulariser matters, at collapse (ALGORITHM.md).
#pragma once
#include "pool.h"
#include "product.h"
#include "rows.h"

namespace svmax::SVMAX_ISA {

constexpr int64_t kPackedRows = 256;           // rows of E at a time: 272 KB of float64 at d = 128, within L2
constexpr int64_t kPackedNumbers = 1 << 17;    // and fewer of them where they are long: 1 MB
constexpr int64_t kParallelProducts = 500000;  // multiply-adds worth handing to another thread (about 10 us of them)

struct GramWorkspace {
  Buffer<double> packed, mean, row;
};

// Adds the products of one packed block to the block-lower half of g: p [depth, n] has a row for each term of the sum.
inline void add_products(const double* p, int64_t p_row, int64_t depth, int64_t n, double* g, int64_t g_row,
                         bool accumulate, const Pool& pool) {
  constexpr int64_t kColumns = 2 * kLanes<double>, kRows = 8 * kTileRows;
  // Tiles of kRows x kColumns that touch the lower half, column by column, so that a panel of p stays in L1.
  int64_t tiles = 0;
  for (int64_t j = 0; j < n; j += kColumns) tiles += (n - j / kRows * kRows + kRows - 1) / kRows;
  const int64_t grain = larger(1, kParallelProducts / (kRows * kColumns * depth));
  pool.each(tiles, grain, [=](int64_t begin, int64_t end) {
    int64_t tile = 0;
    for (int64_t j = 0; j < n; j += kColumns)
      for (int64_t i = j / kRows * kRows; i < n; i += kRows, ++tile) {
        if (tile < begin || tile >= end) continue;
        // Rows above the diagonal block of this column are skipped, but for what shares a tile with it.
        const int64_t first = larger(i, j / kTileRows * kTileRows);
        const int64_t rows = smaller(i + kRows, n) - first;
        product<double>(rows, smaller(kColumns, n - j), depth, p + first, 1, p_row, p + j, p_row,
                        g + first * g_row + j, g_row, accumulate);
      }
  });
}

// p [d, b] = rows [0, b) of E as columns, for the wide case: terms of EE' run over the columns of X.
template <typename scalar_t>
inline void pack_columns(const Rows<scalar_t>& rows, const double* row_norms, const double* mean, double* p,
                         int64_t p_row, double* row) {
  constexpr int64_t kBlock = 8;  // rows transposed together, so that a whole cache line is written at a time
  const int64_t d = rows.d;
  for (int64_t i = 0; i < p_row; i += kBlock) {
    for (int64_t r = 0; r < kBlock; ++r) {
      if (i + r < rows.b)
        read_embedding(rows, i + r, row_norms, mean, row + r * d);
      else
        std::memset(row + r * d, 0, size_t(d) * sizeof(double));
    }
    for (int64_t j = 0; j < d; ++j)
      for (int64_t r = 0; r < kBlock; ++r) p[j * p_row + i + r] = row[r * d + j];
  }
}

// g [n rounded up, g_row]: the block-lower half (with whole diagonal blocks) of the Gram matrix; padding is zero.
template <typename scalar_t>
void gram_lower(const Rows<scalar_t>& rows, double* g, int64_t g_row, double* row_norms, GramWorkspace& space,
                const Pool& pool) {
  const int64_t b = rows.b, d = rows.d, n = smaller(b, d);
  double* mean = space.mean.reserve(d);
  double* row = space.row.reserve(8 * d);
  norms_and_mean(rows, row_norms, mean, row);
  std::memset(g, 0, size_t(round_up(n, 8) * g_row) * sizeof(double));
  if (b >= d) {
    const int64_t p_row = leading_dimension<double>(n);
    const int64_t block = smaller(kPackedRows, larger(8, kPackedNumbers / p_row));
    double* p = space.packed.reserve(smaller(block, b) * p_row);
    for (int64_t i = 0; i < b; i += block) {
      const int64_t end = smaller(i + block, b);
      pack_rows(rows, i, end, row_norms, mean, p, p_row, row);
      add_products(p, p_row, end - i, n, g, g_row, i > 0, pool);
    }
  } else {
    const int64_t p_row = leading_dimension<double>(n);
    double* p = space.packed.reserve(d * p_row);
    pack_columns(rows, row_norms, mean, p, p_row, row);
    add_products(p, p_row, d, n, g, g_row, false, pool);
  }
}

// out [n, n] contiguous = the whole symmetric matrix of a block-lower half.
inline void symmetric_from_lower(const double* g, int64_t g_row, int64_t n, double* out) {
  constexpr int64_t kBlock = 8;  // a block's columns are read as whole cache lines
  for (int64_t i0 = 0; i0 < n; i0 += kBlock)
    for (int64_t j0 = 0; j0 <= i0; j0 += kBlock)
      for (int64_t i = i0; i < smaller(i0 + kBlock, n); ++i)
        for (int64_t j = j0; j < smaller(j0 + kBlock, i + 1); ++j) out[i * n + j] = out[j * n + i] = g[i * g_row + j];
}

}  // namespace svmax::SVMAX_ISA
