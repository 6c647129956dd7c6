// G = Q T Q' by Householder reflectors, in float64, on the block-lower half of G (the first step of stage `spectral`).
//
// From the last row upwards: then the row to eliminate is contiguous, and the matrix that is left is always the leading
// one, with the same alignment. The rank-two update of one step and the matrix-vector product of the next share one pass
// over the matrix: 4 multiply-adds an element of the half, which is read and written once.
#pragma once
#include <cmath>

#include "simd.h"

namespace svmax::SVMAX_ISA {

// One group of rows of the pass: a -= v w' + w v', then p += a u. `inside` rows of the group belong to the matrix; those
// past it hold the reflectors of earlier steps, and are left as they are.
template <bool kWhole>
inline void update_and_multiply_rows(double* a, int64_t a_row, int64_t i, int64_t inside, const double* v,
                                     const double* w, const double* u, double* p) {
  constexpr int64_t L = kLanes<double>;
  constexpr int R = kUpdateRows;
  Vector<double> vi[R], wi[R], ui[R], sum[R];
  for (int r = 0; r < R; ++r) {
    vi[r] = splat(kWhole || r < inside ? v[i + r] : 0.0);
    wi[r] = splat(kWhole || r < inside ? w[i + r] : 0.0);
    ui[r] = splat(kWhole || r < inside ? u[i + r] : 0.0);
    sum[r] = splat(0.0);
  }
  const int64_t diagonal = i / L * L;
  double* rows = a + i * a_row;
  for (int64_t j = 0; j < diagonal; j += L) {
    const Vector<double> vj = load(v + j), wj = load(w + j), uj = load(u + j);
    Vector<double> pj = load(p + j);
    for (int r = 0; r < R; ++r) {
      const Vector<double> x = load(rows + r * a_row + j) - vi[r] * wj - wi[r] * vj;
      store(rows + r * a_row + j, x);
      sum[r] += x * uj;
      pj += x * ui[r];
    }
    store(p + j, pj);
  }
  const Vector<double> vj = load(v + diagonal), wj = load(w + diagonal), uj = load(u + diagonal);
  for (int r = 0; r < R; ++r) {
    double* at = rows + r * a_row + diagonal;
    const Vector<double> x = load(at) - vi[r] * wj - wi[r] * vj;
    store(at, x);
    sum[r] += x * uj;
  }
  add_lane_sums(sum, p + i);
}

// On entry a [n rounded up to 8, a_row] is the block-lower half of G, zero in its padding. On exit row k holds the
// reflector u_k (k entries, u_k[k-1] = 1, zeros after), H_k = I - beta[k] u_k u_k', Q = H_(n-1) ... H_1, and T has
// `diagonal` [n] and `off` [n] (off[i] couples i and i + 1; off[n-1] = 0). work: 3 * a_row numbers.
inline void tridiagonalize(double* a, int64_t a_row, int64_t n, double* diagonal, double* off, double* beta,
                           double* work) {
  double* p = work;
  double* w = work + a_row;
  double* zeros = work + 2 * a_row;
  std::memset(work, 0, size_t(3 * a_row) * sizeof(double));
  const double* v = zeros;  // the reflector whose update is still pending
  off[n - 1] = 0;
  beta[0] = 0;
  for (int64_t k = n - 1; k > 0; --k) {
    double* u = a + k * a_row;
    const double vk = v[k], wk = w[k];
    for (int64_t j = 0; j <= k; ++j) u[j] -= vk * w[j] + wk * v[j];
    diagonal[k] = u[k];
    for (int64_t j = k; j < a_row; ++j) u[j] = 0;

    const double pivot = u[k - 1];
    const double square = dot(u, u, k - 1);
    double scale = 0;
    if (square == 0) {
      off[k - 1] = pivot;
      beta[k] = 0;
    } else {
      const double norm = std::copysign(std::sqrt(pivot * pivot + square), -pivot);
      off[k - 1] = norm;
      beta[k] = (norm - pivot) / norm;
      scale = 1 / (pivot - norm);
    }
    for (int64_t j = 0; j < k - 1; ++j) u[j] *= scale;
    u[k - 1] = 1;

    std::memset(p, 0, size_t(a_row) * sizeof(double));
    int64_t i = 0;
    for (; i + kUpdateRows <= k; i += kUpdateRows)
      update_and_multiply_rows<true>(a, a_row, i, kUpdateRows, v, w, u, p);
    if (i < k) update_and_multiply_rows<false>(a, a_row, i, k - i, v, w, u, p);
    const double half = 0.5 * beta[k] * beta[k] * dot(p, u, k);
    for (int64_t j = 0; j < k; ++j) w[j] = beta[k] * p[j] - half * u[j];
    for (int64_t j = k; j < round_up(k, kLanes<double>); ++j) w[j] = 0;
    v = u;
  }
  diagonal[0] = a[0] - 2 * v[0] * w[0];
}

}  // namespace svmax::SVMAX_ISA
