// Eigenvalues of a tridiagonal matrix without eigenvectors: root-free implicit QL (Pal, Walker, Kahan; Parlett, "The
// Symmetric Eigenvalue Problem", section 8.15). O(n^2); one division a step where the textbook QL has a square root
// too.
#pragma once
#include <cmath>

#include "simd.h"

namespace svmax::SVMAX_ISA {

// d [n] becomes the eigenvalues, unordered; off [n] is destroyed. Absolute error: a few eps times the largest.
inline void tridiagonal_eigenvalues(double* d, double* off, int64_t n) {
  constexpr double kEps = 2.220446049250313e-16;
  constexpr int kMostSteps = 60;  // an eigenvalue takes 1.7 on average; the limit only stops a NaN
  double largest = 0;
  for (int64_t i = 0; i < n; ++i)
    if (std::fabs(d[i]) > largest) largest = std::fabs(d[i]);
  // A coupling this small moves no eigenvalue by more than 1e-3 of what the decomposition's rounding already did.
  const double negligible = (1e-3 * kEps * largest) * (1e-3 * kEps * largest);
  double* e = off;
  for (int64_t i = 0; i + 1 < n; ++i) e[i] *= e[i];  // the squares from here on
  e[n - 1] = 0;
  for (int64_t l = 0; l < n; ++l) {
    for (int step = 0; step < kMostSteps; ++step) {
      int64_t m = l;
      while (m + 1 < n && e[m] > negligible && e[m] > kEps * kEps * std::fabs(d[m] * d[m + 1])) ++m;
      if (m + 1 < n) e[m] = 0;
      if (m == l) break;
      const double root = std::sqrt(e[l]);
      double sigma = (d[l + 1] - d[l]) / (2 * root);
      sigma = d[l] - root / (sigma + std::copysign(std::sqrt(sigma * sigma + 1), sigma));
      double c = 1, s = 0, gamma = d[m] - sigma, p = gamma * gamma;
      for (int64_t i = m - 1; i >= l; --i) {
        const double square = e[i], r = p + square;
        if (i != m - 1) e[i + 1] = s * r;
        const double previous_c = c, previous_gamma = gamma;
        c = p / r;
        s = square / r;
        gamma = c * (d[i] - sigma) - s * previous_gamma;
        d[i + 1] = previous_gamma + (d[i] - gamma);
        p = c != 0 ? gamma * gamma / c : previous_c * square;
      }
      e[l] = s * p;
      d[l] = sigma + gamma;
    }
  }
}

}  // namespace svmax::SVMAX_ISA
