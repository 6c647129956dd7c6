// Rows of the input, read in their own type and made float64: norm, mean, normalisation, centring, projection.
#pragma once
#include <cmath>
#include <type_traits>

#include "scalar.h"
#include "simd.h"

namespace svmax::SVMAX_ISA {

// x [b, d] of one matrix, any strides (in elements); E is what the options make of it.
template <typename scalar_t>
struct Rows {
  const scalar_t* x;
  int64_t b, d, row_stride, column_stride;
  bool normalize, center;

  // out[0, d) = x_i in float64.
  void read(int64_t i, double* out) const {
    const scalar_t* row = x + i * row_stride;
    if (column_stride == 1)
      for (int64_t j = 0; j < d; ++j) out[j] = to_double(row[j]);
    else
      for (int64_t j = 0; j < d; ++j) out[j] = to_double(row[j * column_stride]);
  }
};

inline double row_norm(const double* row, int64_t d) {
  const double square = dot(row, row, d);
  // Squares of float64 numbers can leave the range where those of float32 numbers cannot; then once more, scaled.
  if (square > 1e-280 && square < 1e280) return std::sqrt(square);
  double largest = 0;
  for (int64_t j = 0; j < d; ++j) {
    const double size = std::fabs(row[j]);
    if (!(size <= largest)) largest = size;  // written so that a NaN is kept
  }
  if (largest == 0 || !(largest < INFINITY)) return largest;
  double sum = 0;
  for (int64_t j = 0; j < d; ++j) sum += (row[j] / largest) * (row[j] / largest);
  return largest * std::sqrt(sum);
}

// row /= norm. A zero row stays zero. By division where the reciprocal of a tiny norm would overflow.
inline void divide_row(double* row, double norm, int64_t d) {
  if (norm == 0) return;
  if (norm > 1e-300) {
    const double scale = 1 / norm;
    for (int64_t j = 0; j < d; ++j) row[j] *= scale;
  } else {
    for (int64_t j = 0; j < d; ++j) row[j] /= norm;
  }
}

// row[d] = x_i / |x_i| in float64, or x_i when not normalised.
template <typename scalar_t>
inline void read_normalized(const Rows<scalar_t>& rows, int64_t i, const double* row_norms, double* row) {
  rows.read(i, row);
  if (rows.normalize) divide_row(row, row_norms[i], rows.d);
}

// mean[d] of the (normalised) rows, in a fixed order: row after row.
template <typename scalar_t>
void mean_row(const Rows<scalar_t>& rows, const double* row_norms, double* mean, double* row) {
  std::memset(mean, 0, size_t(rows.d) * sizeof(double));
  for (int64_t i = 0; i < rows.b; ++i) {
    read_normalized(rows, i, row_norms, row);
    for (int64_t j = 0; j < rows.d; ++j) mean[j] += row[j];
  }
  for (int64_t j = 0; j < rows.d; ++j) mean[j] /= double(rows.b);
}

// row_norms[b] when normalised, mean[d] when centred.
template <typename scalar_t>
void norms_and_mean(const Rows<scalar_t>& rows, double* row_norms, double* mean, double* row) {
  if (rows.normalize)
    for (int64_t i = 0; i < rows.b; ++i) {
      rows.read(i, row);
      row_norms[i] = row_norm(row, rows.d);
    }
  if (rows.center) mean_row(rows, row_norms, mean, row);
}

// row[d] = e_i, the row of E: normalised, then centred. Mean first, then products: G - b mean mean' cancels at
// collapse.
template <typename scalar_t>
inline void read_embedding(const Rows<scalar_t>& rows, int64_t i, const double* row_norms, const double* mean,
                           double* row) {
  read_normalized(rows, i, row_norms, row);
  if (rows.center)
    for (int64_t j = 0; j < rows.d; ++j) row[j] -= mean[j];
}

// e[i - begin, :]: rows [begin, end) of E as T, leading dimension e_row, zeros up to it.
template <typename T, typename scalar_t>
void pack_e(const Rows<scalar_t>& rows, int64_t begin, int64_t end, const double* row_norms, const double* mean, T* e,
            int64_t e_row, double* row) {
  for (int64_t i = begin; i < end; ++i) {
    T* out = e + (i - begin) * e_row;
    if constexpr (std::is_same_v<T, double>) {
      read_embedding(rows, i, row_norms, mean, out);
    } else {
      read_embedding(rows, i, row_norms, mean, row);
      for (int64_t j = 0; j < rows.d; ++j) out[j] = T(row[j]);
    }
    for (int64_t j = rows.d; j < e_row; ++j) out[j] = T(0);
  }
}

// dx = (g - (g.e) e) / |x|                                   (ALGORITHM.md, "through normalisation")
// e: the normalised row [d].  g: the same row of dl/dE.  dx: one row in the input's type, contiguous.
template <typename T, typename scalar_t>
inline void project_row(const T* e, const T* g, double row_norm, double grad, int64_t d, scalar_t* dx) {
  // A zero row has no direction: its gradient is zero by contract. Dividing by an epsilon, as F.normalize does,
  // would return 1e12 * g. Written ==, not !(> 0), so that a NaN norm falls through and makes the row NaN.
  if (row_norm == 0) {
    for (int64_t j = 0; j < d; ++j) dx[j] = from_double<scalar_t>(0);
    return;
  }
  const T along = dot(g, e, d);  // float64 at collapse, where g is almost parallel to e and the difference cancels
  const double factor = grad / row_norm;
  for (int64_t j = 0; j < d; ++j) dx[j] = from_double<scalar_t>(double(g[j] - along * e[j]) * factor);
}

}  // namespace svmax::SVMAX_ISA
