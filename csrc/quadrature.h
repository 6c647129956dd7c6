// z^(-1/2) ~ sum_j weight_j / (z + pole_j) on [m, M], relative error 1e-9: Hale, Higham, Trefethen (2008), method 3.
//
// The poles depend on M / m alone, up to scale, and their number is unchanged by rounding that ratio up to a power of
// two, or grows by one. So they are tabulated: one rule for each octave of M / m, for an interval that ends at 1.
#pragma once
#include <cmath>
#include <cstdint>

namespace svmax {

constexpr double kQuadratureTolerance = 1e-9;
constexpr int kOctaves = 54;    // M / m reaches 1 / (4 eps) = 2^50: the shift of spectral.h sees to that
constexpr int kMostPoles = 44;  // at M / m = 2^54

struct Quadrature {
  int count;
  double pole[kMostPoles], weight[kMostPoles];
};

// The Jacobi elliptic functions sn, cn, dn at u of parameter 1 - complementary, by the arithmetic-geometric mean.
// From the complementary parameter itself: 1 - complementary would round, and limit the rule to an error of 1e-5.
struct Elliptic {
  double sn, cn, dn;
};
inline Elliptic jacobi_elliptic(double u, double complementary) {
  constexpr int kMost = 14;  // the mean converges quadratically: 1e-16 is reached after 8 steps at 1e-16
  double mean[kMost + 1], difference[kMost];
  double other = std::sqrt(complementary);
  int steps = 0;
  mean[0] = 1;
  while (steps < kMost && (steps == 0 || difference[steps - 1] > 1e-16 * mean[steps])) {
    difference[steps] = (mean[steps] - other) / 2;
    mean[steps + 1] = (mean[steps] + other) / 2;
    other = std::sqrt(mean[steps] * other);
    ++steps;
  }
  double phi = std::ldexp(mean[steps] * u, steps);
  for (int k = steps; k > 0; --k) {
    const double sine = difference[k - 1] / mean[k] * std::sin(phi);
    phi = (phi + std::asin(sine > 1 ? 1 : sine < -1 ? -1 : sine)) / 2;
  }
  const double sn = std::sin(phi), cn = std::cos(phi);
  return {sn, cn, std::sqrt(cn * cn + complementary * sn * sn)};
}

// K(1 - complementary), the quarter period: pi / (2 agm(1, sqrt(complementary))).
inline double quarter_period(double complementary) {
  double a = 1, b = std::sqrt(complementary);
  for (int k = 0; k < 14; ++k) {
    const double next = (a + b) / 2;
    b = std::sqrt(a * b);
    a = next;
  }
  return std::acos(-1.0) / (2 * a);
}

inline Quadrature quadrature_for_octave(int octave) {
  const double pi = std::acos(-1.0), m = std::ldexp(1.0, -octave);  // the interval [m, 1]
  Quadrature rule;
  rule.count = int(std::ceil((octave * std::log(2.0) + 3) * std::log(1 / kQuadratureTolerance) / (2 * pi * pi)));
  const double quarter = quarter_period(m);
  for (int j = 0; j < rule.count; ++j) {
    const Elliptic at = jacobi_elliptic((j + 0.5) * quarter / rule.count, m);
    rule.pole[j] = m * (at.sn / at.cn) * (at.sn / at.cn);
    rule.weight[j] = 2 * quarter * std::sqrt(m) / (pi * rule.count) * at.dn / (at.cn * at.cn);
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
