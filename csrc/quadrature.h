// z^(-1/2) ~ sum_j weight_j / (z + pole_j) on [m, M]: Hale, Higham, Trefethen (2008), method 3. The relative error is
// 4e-9 at most, and up to 5e-9 with rounding where M / m is beyond 2^50 (tests/steps/test_quadrature.py).
//
// The poles depend on M / m alone, up to scale. A GPU computes them where it needs them, one a lane. For the CPU they
// are tabulated, one rule for each octave of M / m: rounding that ratio up to a power of two adds one pole at the most.
#pragma once
#include <cmath>
#include <cstdint>

#include "config.h"

namespace svmax {

constexpr double kPi = 3.141592653589793;
constexpr double kLogTolerance = 20.72326583694641;  // log(1 / 1e-9): the error is that times a factor of up to 4
constexpr int kOctaves = 54;    // M / m reaches 1 / (4 eps) = 2^50: the shift of spectral.h sees to that
constexpr int kMostPoles = 43;  // at M / m = 2^54

struct Quadrature {
  int count;
  double pole[kMostPoles], weight[kMostPoles];
};

// The arithmetic-geometric mean of 1 and sqrt(m), with every step on the way: it gives the elliptic functions of
// parameter 1 - m. From m itself: 1 - m would round, and limit the rule to an error of 1e-5.
struct Mean {
  static constexpr int kSteps = 9;  // quadratic convergence: 8 steps reach 1e-16 at m = 2^-54, a further one adds 0
  double mean[kSteps + 1], difference[kSteps];

  SVMAX_EVERYWHERE explicit Mean(double m) {
    double other = std::sqrt(m);
    mean[0] = 1;
    SVMAX_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      difference[k] = (mean[k] - other) / 2;
      mean[k + 1] = (mean[k] + other) / 2;
      other = std::sqrt(mean[k] * other);
    }
  }
  // K(1 - m), the quarter period.
  SVMAX_EVERYWHERE double quarter_period() const { return kPi / (2 * mean[kSteps]); }
};

SVMAX_EVERYWHERE int pole_count(double log_ratio) {
  return int(std::ceil((log_ratio + 3) * kLogTolerance / (2 * kPi * kPi)));
}

// Pole j of `count` on [m, 1]: m (sn / cn)^2 and its weight, at u = (j + 1/2) K / count.
struct Pole {
  double pole, weight;
};
SVMAX_EVERYWHERE Pole quadrature_pole(int j, int count, double m, const Mean& agm) {
  const double quarter = agm.quarter_period();
  double phi = (1 << Mean::kSteps) * agm.mean[Mean::kSteps] * ((j + 0.5) * quarter / count);
  SVMAX_UNROLL
  for (int k = Mean::kSteps; k > 0; --k) {
    const double sine = agm.difference[k - 1] / agm.mean[k] * std::sin(phi);
    phi = (phi + std::asin(sine > 1 ? 1 : sine < -1 ? -1 : sine)) / 2;
  }
  const double sn = std::sin(phi), cn = std::cos(phi), dn = std::sqrt(cn * cn + m * sn * sn);
  return {m * (sn / cn) * (sn / cn), 2 * quarter * std::sqrt(m) / (kPi * count) * dn / (cn * cn)};
}

inline Quadrature quadrature_for_octave(int octave) {
  const double m = std::ldexp(1.0, -octave);  // the interval [m, 1]
  const Mean agm(m);
  Quadrature rule;
  rule.count = pole_count(octave * std::log(2.0));
  for (int j = 0; j < rule.count; ++j) {
    const Pole at = quadrature_pole(j, rule.count, m, agm);
    rule.pole[j] = at.pole;
    rule.weight[j] = at.weight;
  }
  return rule;
}

struct QuadratureTable {
  Quadrature octave[kOctaves + 1];

  QuadratureTable() {
    // Octave 0 (m = M) has no elliptic functions of its own; the rule of the next one serves it.
    for (int k = 0; k <= kOctaves; ++k) octave[k] = quadrature_for_octave(k > 0 ? k : 1);
  }
};

}  // namespace svmax
