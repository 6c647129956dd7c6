// G = Q T Q' by Householder reflectors, in float64, on the lower half of G (the first step of stage `spectral`).
//
// From the last row upwards: then the matrix that is left is always the leading one, with the same alignment. The
// rank-two update of one step and the matrix-vector product of the next share one pass over the matrix: 4 multiply-adds
// an element of the half, which is read and written once. Blocks of reflectors (LAPACK's latrd), with which a step only
// reads the matrix, were tried: no faster from n = 128 to 512, where half the matrix still lies in L2.
#pragma once
#include <cmath>

#include "panels.h"

namespace svmax::SVMAX_ISA {

// The pass over one panel: a -= v w' + w v', then p += a u with what lies below the diagonal standing for what
// lies to its right too. a: its rows from the diagonal block on; v, w, u and p begin at its first column, and p beyond
// its columns holds sums already. Row sums are taken a register of rows at a time: they need no memory of their own,
// whose stores would alias the loads of a (addresses equal in their last 12 bits).
inline void pass(double* a, int64_t rows, const double* v, const double* w, const double* u, double* p) {
  constexpr int64_t L = kLanes<double>, kColumns = kPanelColumns<double>;
  const Vector<double> v0 = load(v), v1 = load(v + L), w0 = load(w), w1 = load(w + L), u0 = load(u), u1 = load(u + L);
  Vector<double> p0 = splat(0.0), p1 = p0;
  const auto group = [&]<bool kBelow>(std::bool_constant<kBelow>, int64_t i, int64_t count)
                         __attribute__((always_inline)) {
                           Vector<double> sums[L];
                           for (int64_t r = 0; r < L; ++r) {
                             sums[r] = splat(0.0);
                             if (r >= count) continue;
                             double* at = a + (i + r) * kColumns;
                             const Vector<double> x0 = load(at) - v[i + r] * w0 - w[i + r] * v0;
                             const Vector<double> x1 = load(at + L) - v[i + r] * w1 - w[i + r] * v1;
                             store(at, x0);
                             store(at + L, x1);
                             sums[r] = x0 * u0 + x1 * u1;
                             if (kBelow) {
                               p0 += x0 * u[i + r];
                               p1 += x1 * u[i + r];
                             }
                           }
                           store(p + i, load(p + i) + lane_sums(sums));
                         };
  int64_t i = 0;
  for (; i < smaller(kColumns, rows); i += L) group(std::false_type{}, i, rows - i);
  for (; i + L <= rows; i += L) group(std::true_type{}, i, L);
  if (i < rows) group(std::true_type{}, i, rows - i);
  store(p, load(p) + p0);
  store(p + L, load(p + L) + p1);
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

// On exit row k of reflectors [n, row] is u_k (k entries, u_k[k-1] = 1, zeros after), H_k = I - beta[k] u_k u_k',
// Q = H_(n-1) ... H_1, and T has `diagonal` [n] and `off` [n] (off[i] couples i and i + 1; off[n-1] = 0).
// row is at least n rounded up to kColumns; work: 3 * row numbers.
inline void tridiagonalize(const Panels<double>& a, double* reflectors, int64_t row, double* diagonal, double* off,
                           double* beta, double* work) {
  constexpr int64_t kColumns = kPanelColumns<double>;
  double* p = work;
  double* w = work + row;
  const double* v = work + 2 * row;  // the reflector whose update is still pending: none yet
  std::memset(w, 0, size_t(2 * row) * sizeof(double));
  off[a.n - 1] = 0;
  beta[0] = 0;
  for (int64_t k = a.n - 1; k > 0; --k) {
    double* u = reflectors + k * row;
    const double vk = v[k], wk = w[k];
    for (int64_t j = 0; j <= k; j += kColumns)
      for (int64_t c = 0; c < kColumns; ++c) u[j + c] = a.at(k, j)[c] - vk * w[j + c] - wk * v[j + c];
    diagonal[k] = u[k];
    for (int64_t j = k; j < row; ++j) u[j] = 0;
    make_reflector(u, k, &off[k - 1], &beta[k]);

    const int64_t columns = round_up(k, kColumns);
    std::memset(p, 0, size_t(columns) * sizeof(double));
    for (int64_t j = 0; j < k; j += kColumns) pass(a.at(j, j), k - j, v + j, w + j, u + j, p + j);
    const double half = 0.5 * beta[k] * beta[k] * dot(p, u, k);
    for (int64_t j = 0; j < k; ++j) w[j] = beta[k] * p[j] - half * u[j];
    for (int64_t j = k; j < columns; ++j) w[j] = 0;
    v = u;
  }
  diagonal[0] = a.at(0, 0)[0] - 2 * v[0] * w[0];
}

}  // namespace svmax::SVMAX_ISA
