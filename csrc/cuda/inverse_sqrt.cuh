// T^(-1/2) ~ sum_j w_j (T + a_j)^(-1): the poles, the nuclear norm from them, and their factors, which transform.cuh
// makes W of. No eigenvector, no iteration, no convergence test (ALGORITHM.md, way 1).
#pragma once
#include "../quadrature.h"
#include "team.cuh"

namespace svmax::cuda {

constexpr int kPoleStride = 48;  // kMostPoles, rounded up to whole sectors of memory
static_assert(kPoleStride >= kMostPoles);

// What a gradient needs of one matrix besides its reflectors, in global memory: written by spectral_kernel.
struct Factors {
  Global<f64> reflectors;      // [matrices, n, N]
  Global<f64> beta;            // [matrices, n]
  Global<f64> ratio, inverse;  // [matrices, n, kPoleStride]: of (T + shift + a_j)^(-1), see factor_poles
  Global<f64> plan;            // [matrices, kPlan]

  // Entries of `plan`: the number of poles, what W is multiplied by at last, and its Precision.
  static constexpr int kCount = 0, kFactor = 1, kPrecision = 2, kPlan = 4;

  SVMAX_DEVICE bool wanted() const { return plan != nullptr; }
};

// What W is worth computing in, see spectral.cuh.
enum Precision { kFloat64 = 0, kRoundedToFloat32 = 1, kFloat32 = 2 };

// The interval of T + shift, and the trace of its inverse. One warp's work, the same in all lanes.
struct Interval {
  f64 shift, highest, lowest, inverse_trace;
};

SVMAX_DEVICE Interval spectral_interval(const Shared<f64>& diagonal, const Shared<f64>& off, int n) {
  constexpr double kEps = 2.220446049250313e-16;
  f64 reach = 0;  // Gershgorin
  for (int i = lane_index(); i < n; i += kWarp) {
    const f64 sum = fabs(diagonal[i]) + fabs(off[i]) + (i > 0 ? fabs(off[i - 1]) : f64(0));
    reach = larger_or_nan(reach, sum);
  }
  reach = warp_max(reach);
  // Makes T positive definite against the rounding of the stages before, so that |P| <= 1 + 1e-8 always. With n eps
  // instead of 4 eps the nuclear norm is wrong by 3e-6 at collapse (ALGORITHM.md, trap 3).
  const f64 shift = 4 * kEps * reach;
  // tr((T + shift)^(-1)) = d/dx log det(T + shift + x) = sum_i q_i' / q_i, over the pivots q_i of L D L'. Its
  // reciprocal is a lower bound of the spectrum, and costs no search for the smallest eigenvalue.
  f64 reciprocal = 1 / (diagonal[0] + shift), slope = 1, trace = reciprocal, least = reciprocal;
  for (int i = 1; i < n; ++i) {
    const f64 e = off[i - 1], ratio = e * reciprocal;
    slope = fma(ratio * ratio, slope, f64(1));
    reciprocal = 1 / fma(-e, ratio, diagonal[i] + shift);
    trace = fma(slope, reciprocal, trace);
    least = reciprocal < least ? reciprocal : least;
  }
  const f64 bound = 1 / trace;
  // A pivot of the wrong sign: rounding has won over the shift, and the spectrum begins at zero.
  const f64 lowest = least > 0 && bound > shift ? bound : shift;
  return {shift, reach + shift, lowest, trace};
}

struct PoleSums {
  f64 root_trace, inverse_root_trace;  // this thread's part of tr(T^(1/2)) and tr(T^(-1/2)), of T + shift
};

// Poles thread, thread + threads, ... of `count`. For every pole the factors of (T + shift + pole)^(-1), from the
// bottom up: ratio[i] couples i to i - 1, inverse[i] is the diagonal entry times the weight.
//
// The diagonal from g_i = 1 / q_i + r_i^2 g_(i-1), only positive terms; the textbook 1 / (q_i + e_i - t_i) cancels at
// rank deficiency (ALGORITHM.md, trap 2: |P| came out as 220).
SVMAX_DEVICE PoleSums factor_poles(const Shared<f64>& diagonal, const Shared<f64>& off, int n, const Interval& interval,
                                   int count, int thread, int threads, Global<f64> ratio, Global<f64> inverse) {
  PoleSums sums{0, 0};
  const double ratio_of_ends = double(interval.lowest / interval.highest);
  const double m = ratio_of_ends < 0.5 ? ratio_of_ends : 0.5;
  const Mean agm(m);
  const f64 root = sqrt(interval.highest);  // the rule is for [m, 1]
  for (int j = thread; j < count; j += threads) {
    const Pole at = quadrature_pole(j, count, m, agm);
    const f64 pole = interval.highest * f64(at.pole), weight = root * f64(at.weight), shift = interval.shift + pole;
    f64 reciprocal = 1 / (diagonal[n - 1] + shift), slope = 1, trace = reciprocal;
    if (ratio != nullptr) inverse[(n - 1) * kPoleStride + j] = reciprocal;
    for (int i = n - 2; i >= 0; --i) {
      const f64 e = off[i], r = e * reciprocal;
      slope = fma(r * r, slope, f64(1));
      reciprocal = 1 / fma(-e, r, diagonal[i] + shift);
      trace = fma(slope, reciprocal, trace);
      if (ratio != nullptr) inverse[i * kPoleStride + j] = reciprocal;
    }
    sums.root_trace = fma(weight, fma(-pole, trace, double(n)), sums.root_trace);
    sums.inverse_root_trace = fma(weight, trace, sums.inverse_root_trace);
    if (ratio == nullptr) continue;
    f64 g = 0;
#pragma unroll 4
    for (int i = 0; i < n; ++i) {
      const f64 q = inverse[i * kPoleStride + j], r = i > 0 ? -(off[i - 1] * q) : f64(0);
      g = fma(r * r, g, q);
      ratio[i * kPoleStride + j] = r;
      inverse[i * kPoleStride + j] = weight * g;
    }
  }
  return sums;
}

}  // namespace svmax::cuda
