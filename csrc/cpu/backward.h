// Stage `backward`: dX from the polar factor P = E W (b >= d) or W E (b < d), with the row projection in the same pass.
#pragma once
#include "pool.h"
#include "product.h"
#include "rows.h"

namespace svmax::SVMAX_ISA {

constexpr int64_t kBlockRows = 64;  // rows of dX at a time

struct BackwardWorkspace {
  Buffer<double> mean, row, b64, a64;
  Buffer<float> b32, a32;
};

inline bool all_float(const double* w, int64_t count) {
  bool all = true;
  for (int64_t i = 0; i < count; ++i) all &= w[i] == double(float(w[i]));
  return all;
}

template <typename T>
inline void pack_weight(const double* weight, int64_t n, T* w, int64_t w_row) {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) w[i * w_row + j] = T(weight[i * n + j]);
    for (int64_t j = n; j < w_row; ++j) w[i * w_row + j] = 0;
  }
}

// dx [b, d] contiguous. Blocks of rows of dl/dE = A B: A = E, B = W when tall, A = W, B = E when wide.
template <typename T, typename scalar_t>
void backward_in(const Rows<scalar_t>& rows, double grad, const double* weight, const double* row_norms,
                 const double* mean, scalar_t* dx, Buffer<T>& a_memory, Buffer<T>& b_memory, double* row,
                 const Pool& pool) {
  const int64_t b = rows.b, d = rows.d, n = smaller(b, d);
  const bool tall = b >= d;
  const int64_t n_row = leading_dimension<T>(n), d_row = leading_dimension<T>(d);
  const int64_t blocks = (b + kBlockRows - 1) / kBlockRows;
  // B whole, since every block of rows needs it; of A a block for each thread, or W itself.
  T* factor = b_memory.reserve((tall ? n : b) * d_row);
  T* w = nullptr;
  if (tall) {
    pack_weight(weight, n, factor, d_row);
  } else {
    pack_rows(rows, 0, b, row_norms, mean, factor, d_row, row);
    w = a_memory.reserve(n * n_row);
    pack_weight(weight, n, w, n_row);
  }
  const int64_t grain = larger(1, kParallelProducts / (kBlockRows * n * d));
  pool.each(blocks, grain, [&](int64_t begin, int64_t end) {
    // Scratch of this thread alone; its size does not depend on the number of blocks.
    Buffer<T> products, packed;
    Buffer<double> row_memory;
    T* g = products.reserve(kBlockRows * d_row);
    T* e = tall ? packed.reserve(kBlockRows * d_row) : nullptr;
    double* x = row_memory.reserve(d);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t i0 = block * kBlockRows, count = smaller(kBlockRows, b - i0);
      if (tall) {
        pack_rows(rows, i0, i0 + count, row_norms, mean, e, d_row, x);
        product<T>(count, d, n, e, d_row, 1, factor, d_row, g, d_row, false);
      } else {
        product<T>(count, d, n, w + i0 * n_row, n_row, 1, factor, d_row, g, d_row, false);
      }
      for (int64_t i = 0; i < count; ++i) {
        scalar_t* out = dx + (i0 + i) * d;
        const T* g_i = g + i * d_row;
        if (rows.normalize) {
          rows.read(i0 + i, x);
          project_row(x, g_i, row_norms[i0 + i], grad, d, out);
        } else {
          for (int64_t j = 0; j < d; ++j) out[j] = from_double<scalar_t>(double(g_i[j]) * grad);
        }
      }
    }
  });
}

template <typename scalar_t>
void backward_rows(const Rows<scalar_t>& rows, double grad, const double* weight, const double* row_norms, void* dx,
                   BackwardWorkspace& space, const Pool& pool) {
  const int64_t n = smaller(rows.b, rows.d);
  double* mean = space.mean.reserve(rows.d);
  double* row = space.row.reserve(rows.d + rows.b);
  // The norms are those of the forward; the mean is cheap to take again, and d numbers less are kept in between.
  if (rows.center) norms_and_mean(rows, row + rows.d, mean, row);
  scalar_t* out = static_cast<scalar_t*>(dx);
  if (all_float(weight, n * n))
    backward_in<float>(rows, grad, weight, row_norms, mean, out, space.a32, space.b32, row, pool);
  else
    backward_in<double>(rows, grad, weight, row_norms, mean, out, space.a64, space.b64, row, pool);
}

}  // namespace svmax::SVMAX_ISA
