// What the loss is as a function of the nuclear norm N: value = f(N), slope = df/dN.
#pragma once
#include <cmath>

#include "config.h"

namespace svmax {

struct Objective {
  enum class Kind { Linear, Bounded } kind;
  double scale;            // Linear: f = scale N
  double upper, range, d;  // Bounded: f = exp((upper - N / d) / range), eq. 4

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
