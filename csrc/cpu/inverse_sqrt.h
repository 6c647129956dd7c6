// T^(-1/2) ~ sum_j w_j (T + a_j)^(-1), and Q T^(-1/2) Q': the second step of stage `spectral`. No eigenvector, no
// iteration, no convergence test (ALGORITHM.md, way 1).
#pragma once
#include <cmath>

#include "../quadrature.h"
#include "panels.h"

namespace svmax::SVMAX_ISA {

// Values worked on together, whatever the width of a register: two vectors of AVX-512, whose divisions overlap.
constexpr int64_t kTogether = 16;
typedef double Together __attribute__((vector_size(kTogether * sizeof(double))));

// The interval of the quadrature and its poles, for T + shift.
struct Poles {
  double shift, highest, lowest;
  int64_t count, stride;  // stride: count rounded up to kTogether; the poles past count weigh nothing
  double pole[kMostPoles + kTogether], weight[kMostPoles + kTogether];
};

// The number of leading entries of sigma (ascending) for which T - sigma I is positive definite: all pivots positive.
inline int64_t count_definite(const double* diagonal, const double* off, int64_t n, const Together& sigma) {
  Together pivot = diagonal[0] - sigma, least = pivot;
  for (int64_t i = 1; i < n; ++i) {
    pivot = (diagonal[i] - sigma) - (off[i - 1] * off[i - 1]) / pivot;
    least = pivot < least ? pivot : least;
  }
  int64_t count = 0;
  while (count < kTogether && least[count] > 0) ++count;
  return count;
}

// T's spectrum lies in [lowest, highest] once shift is added; both ends within a small factor.
inline void choose_poles(const double* diagonal, const double* off, int64_t n, const QuadratureTable& table,
                         Poles& poles) {
  constexpr double kEps = 2.220446049250313e-16;
  double highest = 0;  // Gershgorin
  for (int64_t i = 0; i < n; ++i) {
    const double reach = std::fabs(diagonal[i]) + std::fabs(off[i]) + (i > 0 ? std::fabs(off[i - 1]) : 0);
    highest = reach > highest ? reach : highest;
  }
  // Makes T positive definite against the rounding of the stages before, so that |P| <= 1 + 1e-8 always. With n eps
  // instead of 4 eps the nuclear norm is wrong by 3e-6 at collapse (ALGORITHM.md, trap 3).
  poles.shift = 4 * kEps * highest;
  // The smallest eigenvalue by sections, evenly in the exponent: 50 octaves become 3, then a fifth of one.
  double low = poles.shift, high = highest;
  for (int round = 0; round < 2 && high > 1.5 * low; ++round) {
    const double ratio = std::pow(high / low, 1.0 / (kTogether + 1));
    Together sigma;
    for (int64_t l = 0; l < kTogether; ++l) sigma[l] = (l > 0 ? sigma[l - 1] : low) * ratio;
    const int64_t definite = count_definite(diagonal, off, n, sigma);
    if (definite < kTogether) high = sigma[definite];
    if (definite > 0) low = sigma[definite - 1];
  }
  poles.highest = highest + poles.shift;
  poles.lowest = (low > poles.shift ? low : 0) + poles.shift;
  int octave = 0;
  while (octave < kOctaves && std::ldexp(poles.lowest, octave) < poles.highest) ++octave;
  const Quadrature& rule = table.octave[octave];
  const double root = std::sqrt(poles.highest);  // the rule is for [m, 1]
  poles.count = rule.count;
  poles.stride = round_up(rule.count, kTogether);
  for (int64_t j = 0; j < poles.stride; ++j) {
    const bool used = j < rule.count;
    poles.pole[j] = poles.highest * (used ? rule.pole[j] : 1);
    poles.weight[j] = used ? rule.weight[j] * root : 0;
  }
}

// tr((T + shift)^(-1)) = d/dx log det(T + shift + x) = sum_i q_i' / q_i, over the pivots q_i of L D L'.
inline double inverse_trace(const double* diagonal, const double* off, int64_t n, double shift) {
  double pivot = diagonal[0] + shift, slope = 1, sum = 1 / pivot;
  for (int64_t i = 1; i < n; ++i) {
    const double ratio = off[i - 1] / pivot;
    slope = 1 + ratio * ratio * slope;
    pivot = diagonal[i] + shift - off[i - 1] * ratio;
    sum += slope / pivot;
  }
  return sum;
}

// For every pole the factors of (T + shift + pole)^(-1), from the bottom up: ratio[i] couples i to i - 1, inverse[i] is
// the diagonal entry times the weight. Both [n, poles.stride]. Returns tr((T + shift)^(1/2)).
//
// The diagonal from g_i = 1 / q_i + r_i^2 g_(i-1), only positive terms; the textbook 1 / (q_i + e_i - t_i) cancels at
// rank deficiency (ALGORITHM.md, trap 2: |P| came out as 220).
inline double factor_poles(const double* diagonal, const double* off, int64_t n, const Poles& poles, double* ratio,
                           double* inverse) {
  double root_trace = 0;
  for (int64_t j = 0; j < poles.stride; j += kTogether) {
    Together pole, weight, reciprocal = {}, previous = {}, trace = {};
    std::memcpy(&pole, poles.pole + j, sizeof pole);
    std::memcpy(&weight, poles.weight + j, sizeof weight);
    for (int64_t i = n - 1; i >= 0; --i) {
      reciprocal = 1 / (((diagonal[i] + poles.shift) + pole) - (off[i] * off[i]) * reciprocal);  // off[n - 1] is 0
      const Together r = (i > 0 ? -off[i - 1] : 0) * reciprocal;
      std::memcpy(inverse + i * poles.stride + j, &reciprocal, sizeof reciprocal);
      std::memcpy(ratio + i * poles.stride + j, &r, sizeof r);
    }
    for (int64_t i = 0; i < n; ++i) {
      Together r, g;
      std::memcpy(&r, ratio + i * poles.stride + j, sizeof r);
      std::memcpy(&g, inverse + i * poles.stride + j, sizeof g);
      previous = g + r * r * previous;
      trace += 1 - pole * previous;
      g = weight * previous;
      std::memcpy(inverse + i * poles.stride + j, &g, sizeof g);
    }
    trace *= weight;
    for (int64_t l = 0; l < kTogether; ++l) root_trace += trace[l];
  }
  return root_trace;
}

// Entries of T^(-1/2) fall off exponentially away from the diagonal, where that is at least 1/2 (G is scaled): without
// this they would end as subnormal numbers, which processors multiply at a hundredth of their speed.
constexpr double kNothing = 1e-30;

// f = T^(-1/2). Row i of the inverse for one pole is row i - 1 times ratio[i], with inverse[i] on the diagonal: columns
// do not mix, so two registers of them go all the way down, with their current row for each pole in L1.
template <typename T>
void sum_poles(const Poles& poles, const double* ratio, const double* inverse, const Panels<T>& f, const Pool& pool) {
  constexpr int64_t L = kLanes<double>, kWidth = 2 * L, kColumns = kPanelColumns<T>;
  const int64_t n = f.n, strips = (n + kWidth - 1) / kWidth;
  f.clear();
  const int64_t grain = larger(1, kParallelProducts / (poles.count * n * kWidth));
  pool.each(strips, grain, [&](int64_t begin, int64_t end) {
    double row[kMostPoles][kWidth];
    for (int64_t strip = begin; strip < end; ++strip) {
      // Strips shrink from left to right: taken from both ends in turn, every thread gets the same work.
      const int64_t k = kWidth * (strip % 2 == 0 ? strip / 2 : strips - 1 - strip / 2);
      for (int64_t j = 0; j < poles.count; ++j)
        for (int64_t l = 0; l < kWidth; ++l) row[j][l] = 0;
      for (int64_t i = k; i < n; ++i) {
        const double* ratio_i = ratio + i * poles.stride;
        const double* inverse_i = inverse + i * poles.stride;
        Vector<double> sum0 = splat(0.0), sum1 = sum0;
        for (int64_t j = 0; j < poles.count; ++j) {
          Vector<double> x0 = load(row[j]) * ratio_i[j], x1 = load(row[j] + L) * ratio_i[j];
          x0 = x0 * x0 > kNothing * kNothing ? x0 : Vector<double>{};
          x1 = x1 * x1 > kNothing * kNothing ? x1 : Vector<double>{};
          store(row[j], x0);
          store(row[j] + L, x1);
          sum0 += x0;
          sum1 += x1;
        }
        T* out = f.at(i, k / kColumns * kColumns) + k % kColumns;
        store_as(out, sum0);
        store_as(out + L, sum1);
        if (i - k >= kWidth) continue;
        double diagonal = 0;
        for (int64_t j = 0; j < poles.count; ++j) diagonal += row[j][i - k] = inverse_i[j];
        out[i - k] = T(diagonal);
      }
    }
  });
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = i / kColumns * kColumns; k < i; ++k) f.element(k, i) = f.element(i, k);
}

// w = Q w Q', in place, P reflectors at a time: with Q = I - V S V' of one group of them
//   w - V X' - X V',   X = Z - V M / 2,   Z = (w V) S',   M = S (V'Z), symmetric.
// reflectors [n, r_row] and beta as tridiagonalize leaves them.
template <int64_t P, typename T>
void back_transform(const Panels<T>& w, const double* reflectors, int64_t r_row, const double* beta, Buffer<T>& memory,
                    const Pool& pool) {
  constexpr int64_t kColumns = kPanelColumns<T>;
  const int64_t n = w.n, row = leading_dimension<T>(w.rows);
  T* left = memory.reserve(5 * P * row + 2 * w.rows * P + 5 * P * P);  // [2 P, row]: -V, then -X
  T* right = left + 2 * P * row;                                       // [2 P, row]: X, then V
  T* y = right + 2 * P * row;                                          // [P, row]: (w V)'
  T* columns = y + P * row;                                            // [rows, P]: V with its vectors as columns
  T* transposed = columns + w.rows * P;                                // [rows, P]: a part of w V
  T* s = transposed + w.rows * P;                                      // and five [P, P]
  T *s_columns = s + P * P, *overlap = s_columns + P * P, *zv = overlap + P * P, *m = zv + P * P;
  T* v = right + P * row;

  for (int64_t k0 = 1; k0 < n; k0 += P) {
    const int64_t k1 = smaller(k0 + P, n), reach = k1 - 1;  // vectors of the group have `reach` entries at the most
    for (int64_t k = 0; k < P; ++k) {
      T* v_k = v + k * row;
      const int64_t length = k0 + k < k1 ? reach : 0;
      for (int64_t j = 0; j < length; ++j) v_k[j] = T(reflectors[(k0 + k) * r_row + j]);
      for (int64_t j = length; j < row; ++j) v_k[j] = 0;
      for (int64_t j = 0; j < row; ++j) left[k * row + j] = -v_k[j];
      for (int64_t j = 0; j < reach; ++j) columns[j * P + k] = v_k[j];
    }
    // (w V)' from the lower half alone: in each block of rows, what lies from the diagonal down stands for the row to
    // the right of it, and what lies to the left is multiplied as it is and then transposed.
    const int64_t blocks = w.rows / kColumns, strips = (reach + kColumns - 1) / kColumns;
    pool.each(blocks, larger(1, kParallelProducts / (kColumns * P * reach)), [=](int64_t begin, int64_t end) {
      for (int64_t i = begin * kColumns; i < end * kColumns; i += kColumns) {
        const int64_t rows = smaller(kColumns, n - i);
        product<T>(P, kColumns, larger(reach - i, 0), v + i, row, 1, w.at(i, i), kColumns, y + i, row, false);
        if (i == 0) continue;
        T* part = transposed + i * P;
        for (int64_t j = 0; j < smaller(i, reach); j += kColumns)
          product<T>(rows, P, smaller(kColumns, reach - j), w.at(i, j), kColumns, 1, columns + j * P, P, part, P,
                     j > 0);
        for (int64_t k = 0; k < P; ++k)
          for (int64_t r = 0; r < rows; ++r) y[k * row + i + r] += part[r * P + k];
      }
    });
    // S, lower triangular: H_k (I - V S V') appends the row -beta (v_k'V) S, with beta on the diagonal.
    product<T>(P, P, reach, v, row, 1, columns, P, overlap, P, false);
    for (int64_t k = 0; k < P; ++k) {
      const T factor = k0 + k < k1 ? T(beta[k0 + k]) : T(0);
      T row_k[P] = {};
      for (int64_t q = 0; q < k; ++q)
        for (int64_t l = 0; l < P; ++l) row_k[l] -= factor * overlap[k * P + q] * s[q * P + l];
      row_k[k] = factor;
      for (int64_t l = 0; l < P; ++l) s[k * P + l] = s_columns[l * P + k] = row_k[l];
    }
    product<T>(P, n, P, s, P, 1, y, row, right, row, false);           // Z' = S (w V)'
    product<T>(P, P, reach, right, row, 1, columns, P, zv, P, false);  // Z'V
    product<T>(P, P, P, zv, P, 1, s_columns, P, m, P, false);          // M' = (Z'V) S' = M
    for (int64_t l = 0; l < P * P; ++l) m[l] *= T(-0.5);
    product<T>(P, reach, P, m, P, 1, v, row, right, row, true);  // X' = Z' - M V' / 2
    for (int64_t k = 0; k < P; ++k)
      for (int64_t j = 0; j < w.rows; ++j) left[(P + k) * row + j] = -right[k * row + j];
    // w += [-V, -X] [X, V]', in the columns that V reaches; below its reach V's own rows are zero.
    pool.each(strips, larger(1, kParallelProducts / (kColumns * n * P)), [=](int64_t begin, int64_t end) {
      const int64_t split = smaller(round_up(reach, kColumns), n);
      for (int64_t strip = begin; strip < end; ++strip) {
        // Strips shrink from left to right: taken from both ends in turn, every thread gets the same work.
        const int64_t j = kColumns * (strip % 2 == 0 ? strip / 2 : strips - 1 - strip / 2);
        const int64_t width = smaller(kColumns, n - j);
        product<T>(split - j, width, 2 * P, left + j, 1, row, right + j, row, w.at(j, j), kColumns, true);
        product<T>(n - split, width, P, left + P * row + split, 1, row, v + j, row, w.at(split, j), kColumns, true);
      }
    });
  }
}

}  // namespace svmax::SVMAX_ISA
