// Stage `gram`: G = E'E (tall) or EE' (wide: is_tall) in float64, from X in its own type.
//
// The product of two float32 numbers is exact in float64, so a float64 Gram matrix is as good as a float32 SVD; a
// float32 one loses the small singular values just where the regulariser matters, at collapse (ALGORITHM.md).
#pragma once
#include "panels.h"
#include "rows.h"

namespace svmax::SVMAX_ISA {

// Numbers of E packed at a time: half of L2 is quickest for one thread, several want more work between two meetings.
constexpr int64_t kPackedNumbers = 36 << 10, kPackedNumbersForThreads = 144 << 10;

struct GramWorkspace {
  Buffer<double> packed, mean, row;
};

// e [d, b] = E', for the wide case: terms of EE' run over the columns of X.
template <typename scalar_t>
inline void pack_e_transposed(const Rows<scalar_t>& rows, const double* row_norms, const double* mean, double* e,
                              int64_t e_row, double* row) {
  constexpr int64_t kBlock = 8;  // rows transposed together, so that a whole cache line is written at a time
  const int64_t d = rows.d;
  for (int64_t i = 0; i < e_row; i += kBlock) {
    for (int64_t r = 0; r < kBlock; ++r) {
      if (i + r < rows.b)
        read_embedding(rows, i + r, row_norms, mean, row + r * d);
      else
        std::memset(row + r * d, 0, size_t(d) * sizeof(double));
    }
    for (int64_t j = 0; j < d; ++j)
      for (int64_t r = 0; r < kBlock; ++r) e[j * e_row + i + r] = row[r * d + j];
  }
}

// The Gram matrix of the rows, and row_norms [b] when normalised.
template <typename scalar_t>
void gram_panels(const Rows<scalar_t>& rows, const Panels<double>& g, double* row_norms, GramWorkspace& space,
                 const Pool& pool) {
  const int64_t b = rows.b, d = rows.d, n = smaller(b, d);
  double* mean = space.mean.reserve(d);
  double* row = space.row.reserve(8 * d);
  norms_and_mean(rows, row_norms, mean, row);
  g.clear_padding();
  const int64_t e_row = leading_dimension<double>(n);
  if (!is_tall(b, d, rows.center)) {
    double* e = space.packed.reserve(d * e_row);
    pack_e_transposed(rows, row_norms, mean, e, e_row, row);
    return add_products(e, e, e_row, d, g, false, pool);
  }
  const int64_t numbers = pool.threads > 1 ? kPackedNumbersForThreads : kPackedNumbers;
  const int64_t block = larger(kDepth, numbers / e_row / kDepth * kDepth);
  double* e = space.packed.reserve(smaller(block, b) * e_row);
  for (int64_t i = 0; i < b; i += block) {
    const int64_t end = smaller(i + block, b);
    pack_e(rows, i, end, row_norms, mean, e, e_row, row);
    add_products(e, e, e_row, end - i, g, i > 0, pool);
  }
}

}  // namespace svmax::SVMAX_ISA
