// The loss as a function of the nuclear norm N: value = f(N), slope = df/dN.
#pragma once
#include <cmath>

#include "config.h"

namespace svmax {

struct Objective {
  enum class Kind { Linear, Bounded } kind;
  double scale;            // Linear: f = scale N
  double upper, range, d;  // Bounded: f = exp((upper - N / d) / range), eq. 4

  SVMAX_EVERYWHERE static Objective linear(double scale) { return {Kind::Linear, scale, 0, 0, 0}; }

  // U and L bound s_mu = N / d for b rows of unit norm in d dimensions: all singular values equal, or only one that is
  // not zero. Centred rows add up to zero, which takes one direction from them, and has no lower bound but zero.
  SVMAX_EVERYWHERE static Objective bounded(double b, double d, bool center) {
    const double rank = center ? b - 1 : b;
    const double upper = std::sqrt((rank < d ? rank : d) * b) / d, lower = center ? 0 : std::sqrt(b) / d;
    return {Kind::Bounded, 0, upper, upper - lower, d};
  }

  // Where U equals L nothing is left to divide by.
  SVMAX_EVERYWHERE bool is_defined() const { return kind == Kind::Linear || range > 0; }

  // T: double, or what stands for it on a device.
  template <typename T>
  SVMAX_EVERYWHERE T value(T norm) const {
    using std::exp;
    return kind == Kind::Linear ? T(scale * norm) : T(exp((upper - norm / d) / range));
  }
  template <typename T>
  SVMAX_EVERYWHERE T slope(T norm) const {
    return kind == Kind::Linear ? T(scale) : T(-value(norm) / (range * d));
  }
};

}  // namespace svmax
