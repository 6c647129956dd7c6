// G = Q T Q' by Householder reflectors, in float64, on the lower half of G (the first step of stage `spectral`).
//
// From the last row upwards: then the matrix that is left is always the leading one, with the same alignment. While it
// lies in the caches near the core, the rank-two update of one step and the matrix-vector product of the next share one
// pass over it. Larger ones are only read in a step, and updated by a block of reflectors at a time (LAPACK's latrd).
#pragma once
#include <cmath>

#include "panels.h"

namespace svmax::SVMAX_ISA {

constexpr int64_t kFusedSize = 160;  // up to here fused: half a matrix of 100 KB. Measured: equal at 128 to 192
constexpr int64_t kBlock = 32;       // reflectors to a block above

// The pass over one panel: a -= v w' + w v' (kUpdate), then p += a u with what lies below the diagonal standing for what
// lies to its right too. a: its rows from the diagonal block on; v, w, u and p begin at its first column, and p beyond
// its columns holds sums already. Row sums are taken a register of rows at a time: they need no memory of their own,
// whose stores would alias the loads of a (addresses equal in their last 12 bits).
template <bool kUpdate>
inline void pass(double* a, int64_t rows, const double* v, const double* w, const double* u, double* p) {
  constexpr int64_t L = kLanes<double>;
  Vector<double> v0{}, v1{}, w0{}, w1{};
  if (kUpdate) v0 = load(v), v1 = load(v + L), w0 = load(w), w1 = load(w + L);
  const Vector<double> u0 = load(u), u1 = load(u + L);
  Vector<double> p0 = splat(0.0), p1 = p0;
  const auto group = [&]<bool kBelow>(std::bool_constant<kBelow>, int64_t i, int64_t count) {
    Vector<double> sums[L];
    for (int64_t r = 0; r < L; ++r) {
      sums[r] = splat(0.0);
      if (r >= count) continue;
      double* at = a + (i + r) * kPanelColumns;
      Vector<double> x0 = load(at), x1 = load(at + L);
      if (kUpdate) {
        x0 = x0 - v[i + r] * w0 - w[i + r] * v0;
        x1 = x1 - v[i + r] * w1 - w[i + r] * v1;
        store(at, x0);
        store(at + L, x1);
      }
      sums[r] = x0 * u0 + x1 * u1;
      if (kBelow) {
        p0 += x0 * u[i + r];
        p1 += x1 * u[i + r];
      }
    }
    store(p + i, load(p + i) + lane_sums(sums));
  };
  int64_t i = 0;
  for (; i < smaller(kPanelColumns, rows); i += L) group(std::false_type{}, i, rows - i);
  for (; i + L <= rows; i += L) group(std::true_type{}, i, L);
  if (i < rows) group(std::true_type{}, i, rows - i);
  store(p, load(p) + p0);
  store(p + L, load(p + L) + p1);
}

// p = a u on the leading k rows and columns, after a -= v w' + w v' when kUpdate.
template <bool kUpdate>
inline void multiply(const Panels& a, int64_t k, const double* v, const double* w, const double* u, double* p) {
  std::memset(p, 0, size_t(round_up(k, kPanelColumns)) * sizeof(double));
  for (int64_t j = 0; j < k; j += kPanelColumns) pass<kUpdate>(a.at(j, j), k - j, v + j, w + j, u + j, p + j);
}

// u[0, k): a row left of the diagonal on entry, on exit the reflector that maps it onto its last entry, u[k-1] = 1.
inline void make_reflector(double* u, int64_t k, double* off, double* beta) {
  const double pivot = u[k - 1], square = dot(u, u, k - 1);
  double scale = 0;
  *off = pivot;
  *beta = 0;
  if (square != 0) {
    const double norm = std::copysign(std::sqrt(pivot * pivot + square), -pivot);
    *off = norm;
    *beta = (norm - pivot) / norm;
    scale = 1 / (pivot - norm);
  }
  for (int64_t j = 0; j < k - 1; ++j) u[j] *= scale;
  u[k - 1] = 1;
}

// w of the update a -= u w' + w u', from p = a u.
inline void make_update(const double* p, const double* u, int64_t k, double beta, double* w, int64_t row) {
  const double half = 0.5 * beta * beta * dot(p, u, k);
  for (int64_t j = 0; j < k; ++j) w[j] = beta * p[j] - half * u[j];
  for (int64_t j = k; j < smaller(round_up(k, kPanelColumns) + kPanelColumns, row); ++j) w[j] = 0;
}

inline int64_t tridiagonal_work(int64_t row) { return (2 + 4 * kBlock) * row; }

// On exit row k of reflectors [n, row] is u_k (k entries, u_k[k-1] = 1, zeros after), H_k = I - beta[k] u_k u_k',
// Q = H_(n-1) ... H_1, and T has `diagonal` [n] and `off` [n] (off[i] couples i and i + 1; off[n-1] = 0).
// row is at least n rounded up to kPanelColumns; work: tridiagonal_work(row) numbers.
inline void tridiagonalize(const Panels& a, double* reflectors, int64_t row, double* diagonal, double* off,
                           double* beta, double* work, const Pool& pool) {
  double* p = work;
  double* zeros = work + row;
  double* left = work + 2 * row;            // [2 kBlock, row]: -V, then -W
  double* right = left + 2 * kBlock * row;  // [2 kBlock, row]: W, then V
  std::memset(zeros, 0, size_t(row) * sizeof(double));
  off[a.n - 1] = 0;
  beta[0] = 0;
  int64_t k = a.n - 1;

  while (k >= kFusedSize) {
    // Of the matrix as it is at the block's start, with the block's earlier updates applied to the vectors instead.
    int64_t count = 0;
    for (; count < kBlock; ++count, --k) {
      double* u = reflectors + k * row;
      const double* v = right + kBlock * row;
      for (int64_t j = 0; j <= k; j += kPanelColumns)
        std::memcpy(u + j, a.at(k, j), size_t(kPanelColumns) * sizeof(double));
      for (int64_t l = 0; l < count; ++l) {
        const double vk = v[l * row + k], wk = right[l * row + k];
        for (int64_t j = 0; j <= k; ++j) u[j] -= vk * right[l * row + j] + wk * v[l * row + j];
      }
      diagonal[k] = u[k];
      for (int64_t j = k; j < row; ++j) u[j] = 0;
      make_reflector(u, k, &off[k - 1], &beta[k]);
      multiply<false>(a, k, zeros, zeros, u, p);
      for (int64_t l = 0; l < count; ++l) {
        const double vu = dot(v + l * row, u, k), wu = dot(right + l * row, u, k);
        for (int64_t j = 0; j < k; ++j) p[j] -= wu * v[l * row + j] + vu * right[l * row + j];
      }
      double* w = right + count * row;
      make_update(p, u, k, beta[k], w, row);
      for (int64_t j = k; j < row; ++j) w[j] = 0;
      for (int64_t j = 0; j < row; ++j) {
        right[(kBlock + count) * row + j] = u[j];
        left[count * row + j] = -u[j];
        left[(kBlock + count) * row + j] = -w[j];
      }
    }
    Panels leading = a;
    leading.n = k + 1;
    add_products(left, right, row, 2 * kBlock, leading, true, pool);
  }

  const double* v = zeros;  // the reflector whose update is still pending
  double* w = right;
  std::memset(w, 0, size_t(row) * sizeof(double));
  for (; k > 0; --k) {
    double* u = reflectors + k * row;
    const double vk = v[k], wk = w[k];
    for (int64_t j = 0; j <= k; j += kPanelColumns)
      for (int64_t c = 0; c < kPanelColumns; ++c) u[j + c] = a.at(k, j)[c] - vk * w[j + c] - wk * v[j + c];
    diagonal[k] = u[k];
    for (int64_t j = k; j < row; ++j) u[j] = 0;
    make_reflector(u, k, &off[k - 1], &beta[k]);
    multiply<true>(a, k, v, w, u, p);
    make_update(p, u, k, beta[k], w, row);
    v = u;
  }
  diagonal[0] = a.at(0, 0)[0] - 2 * v[0] * w[0];
}

}  // namespace svmax::SVMAX_ISA
