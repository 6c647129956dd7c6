// Stage `backward`: dX from the polar factor P = E W (tall) or W E (wide: is_tall), with the row projection in the same
// pass.
#pragma once
#include "pool.h"
#include "product.h"
#include "rows.h"

namespace svmax::SVMAX_ISA {

constexpr int64_t kBlockRows = 64;  // rows of dX at a time

struct BackwardWorkspace {
  Buffer<double> mean, row, weight_mean, w64, e64, block64;
  Buffer<float> w32, e32, block32;
};

// The mean of the rows of W [n, n] where E is centred and wide, else null.
//
// EE' then has the null vector of ones, along which W is 1 / sqrt(shift): 3e7 times as much as elsewhere. That would
// multiply the sum of E's rows, which is zero but for rounding, and whatever rounding of EE' has turned into that
// direction: measured 3e-3 of P at noise 1e-6. Without their mean the rows of W do not know the direction, exactly.
inline const double* mean_to_take_off(const double* weight, int64_t n, bool tall, bool center, Buffer<double>& memory) {
  if (tall || !center) return nullptr;
  double* mean = memory.reserve(n);
  std::memset(mean, 0, size_t(n) * sizeof(double));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) mean[j] += weight[i * n + j];
  for (int64_t j = 0; j < n; ++j) mean[j] /= double(n);
  return mean;
}

// w [n, n] = weight, less `mean` (if any) in each row, as T, leading dimension w_row.
template <typename T>
inline void pack_weight(const double* weight, const double* mean, int64_t n, T* w, int64_t w_row) {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) w[i * w_row + j] = T(weight[i * n + j] - (mean ? mean[j] : 0));
    for (int64_t j = n; j < w_row; ++j) w[i * w_row + j] = 0;
  }
}

// dx [b, d] contiguous, in blocks of rows of dl/dE = E W (tall) or W E (wide). T: what the product is taken in.
template <typename T, typename scalar_t>
void backward_in(const Rows<scalar_t>& rows, double grad, const double* weight, const double* weight_mean,
                 const double* row_norms, const double* mean, scalar_t* dx, Buffer<T>& w_memory, Buffer<T>& e_memory,
                 Buffer<T>& block_memory, Buffer<double>& row_memory, const Pool& pool) {
  const int64_t b = rows.b, d = rows.d, n = smaller(b, d);
  const bool tall = is_tall(b, d, rows.center);
  const int64_t n_row = leading_dimension<T>(n), d_row = leading_dimension<T>(d);
  T* w = w_memory.reserve(n * n_row);
  pack_weight(weight, weight_mean, n, w, n_row);
  T* whole_e = nullptr;  // wide: every block of rows needs all of E
  if (!tall) {
    whole_e = e_memory.reserve(b * d_row);
    pack_e(rows, 0, b, row_norms, mean, whole_e, d_row, row_memory.reserve(d));
  }
  const int64_t blocks = (b + kBlockRows - 1) / kBlockRows;
  const int64_t grain = larger(1, kParallelProducts / (kBlockRows * n * d));
  pool.each(blocks, grain, [&](int64_t begin, int64_t end) {
    // Each thread has its own E and dl/dE of a block, and one normalised row; the first one has the workspace's.
    Buffer<T> fresh;
    Buffer<double> fresh_row;
    Buffer<T>& own = begin == 0 ? block_memory : fresh;
    Buffer<double>& own_row = begin == 0 ? row_memory : fresh_row;
    T* g = own.reserve((2 * kBlockRows + 1) * d_row);
    T* block_e = g + kBlockRows * d_row;
    T* normalized = g + 2 * kBlockRows * d_row;
    double* x = own_row.reserve(d);
    for (int64_t i0 = begin * kBlockRows; i0 < smaller(end * kBlockRows, b); i0 += kBlockRows) {
      const int64_t count = smaller(kBlockRows, b - i0);
      const T* e = block_e;
      if (tall) {
        pack_e(rows, i0, i0 + count, row_norms, mean, block_e, d_row, x);
        product<T>(count, d, n, e, d_row, 1, w, n_row, g, d_row, false);
      } else {
        e = whole_e + i0 * d_row;
        product<T>(count, d, n, w + i0 * n_row, n_row, 1, whole_e, d_row, g, d_row, false);
      }
      for (int64_t i = 0; i < count; ++i) {
        scalar_t* out = dx + (i0 + i) * d;
        const T* g_i = g + i * d_row;
        const T* e_i = e + i * d_row;
        if (!rows.normalize) {
          for (int64_t j = 0; j < d; ++j) out[j] = from_double<scalar_t>(double(g_i[j]) * grad);
          continue;
        }
        if (rows.center) {  // the projection is on the row before centring
          read_normalized(rows, i0 + i, row_norms, x);
          for (int64_t j = 0; j < d; ++j) normalized[j] = T(x[j]);
          e_i = normalized;
        }
        project_row(e_i, g_i, row_norms[i0 + i], grad, d, out);
      }
    }
  });
}

// in_float32: the precision of W, as `spectral` returns it.
template <typename scalar_t>
void backward_rows(const Rows<scalar_t>& rows, double grad, const double* weight, bool in_float32,
                   const double* row_norms, void* dx, BackwardWorkspace& space, const Pool& pool) {
  double* mean = space.mean.reserve(rows.d);
  // The mean is cheap to take again, and d numbers less are kept between forward and backward.
  if (rows.center) mean_row(rows, row_norms, mean, space.row.reserve(rows.d));
  const bool tall = is_tall(rows.b, rows.d, rows.center);
  const double* weight_mean = mean_to_take_off(weight, smaller(rows.b, rows.d), tall, rows.center, space.weight_mean);
  scalar_t* out = static_cast<scalar_t*>(dx);
  // float64 x has digits that float32 products would lose, and so has W once its mean row is off.
  if constexpr (!std::is_same_v<scalar_t, double>)
    if (in_float32 && weight_mean == nullptr)
      return backward_in<float>(rows, grad, weight, weight_mean, row_norms, mean, out, space.w32, space.e32,
                                space.block32, space.row, pool);
  backward_in<double>(rows, grad, weight, weight_mean, row_norms, mean, out, space.w64, space.e64, space.block64,
                      space.row, pool);
}

}  // namespace svmax::SVMAX_ISA
