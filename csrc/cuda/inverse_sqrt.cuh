// T^(-1/2) ~ sum_j w_j (T + a_j)^(-1): the poles, the nuclear norm from them, and their factors, which transform.cuh
// makes W of. No eigenvector, no iteration, no convergence test (ALGORITHM.md, way 1).
#pragma once
#include "../quadrature.h"
#include "eigenvalues.cuh"

namespace svmax::cuda {

constexpr int kPoleStride = 48;  // kMostPoles, rounded up to whole sectors of memory
static_assert(kPoleStride >= kMostPoles);

// All that a gradient needs of one matrix besides its reflectors, in global memory: written by spectral_kernel.
struct Factors {
  Global<f64> reflectors;      // [matrices, n, N]
  Global<f64> beta;            // [matrices, n]
  Global<f64> ratio, inverse;  // [matrices, n, kPoleStride]: of (T + shift + a_j)^(-1), see factor_poles
  Global<f64> plan;            // [matrices, kPlan]
  Global<bool> in_float32;     // [matrices] W's precision, as the ops return it

  // Entries of `plan`: the number of poles, what W is multiplied by at last, and its Precision.
  static constexpr int kCount = 0, kFactor = 1, kPrecision = 2, kPlan = 4;
};

// The precision that W is worth computing in, see spectral.cuh.
enum Precision { kFloat64 = 0, kRoundedToFloat32 = 1, kFloat32 = 2 };

// The interval of T + shift, and the trace of its inverse. One warp's work, the same in all lanes.
struct Interval {
  f64 shift, highest, lowest, inverse_trace;
};

// tr((T + shift)^(-1)) = d/dx log det(T + shift + x) = sum_i q_i' / q_i over the pivots q_i: from both ends of T at
// once, by two neighbouring lanes, since a chain of divisions is what it takes. They meet in the middle pivot.
struct InverseTrace {
  f64 trace, least;  // the same in both lanes; least: of the reciprocal pivots
};

SVMAX_DEVICE InverseTrace inverse_trace(const Shared<f64>& diagonal, const Shared<f64>& off, int n, f64 shift) {
  const bool lower = lane_index() % 2 == 1;
  const int middle = n / 2, count = lower ? n - 1 - middle : middle;
  f64 reciprocal = 0, slope = 0, trace = 0, least = 1;
  for (int t = 0; t < middle; ++t) {
    if (t >= count) continue;  // the last step of a shorter half
    const int i = lower ? n - 1 - t : t;
    const f64 e = t == 0 ? f64(0) : f64(off[lower ? i : i - 1]), ratio = e * reciprocal;
    slope = fma(ratio * ratio, slope, f64(1));
    reciprocal = 1 / fma(-e, ratio, diagonal[i] + shift);
    trace = fma(slope, reciprocal, trace);
    least = reciprocal < least ? reciprocal : least;
  }
  const f64 e = count == 0 ? f64(0) : f64(off[lower ? middle : middle - 1]), ratio = e * reciprocal;
  const f64 taken = e * ratio, added = ratio * ratio * slope;
  const f64 other_taken = __shfl_xor_sync(kAllLanes, taken, 1), other_added = __shfl_xor_sync(kAllLanes, added, 1);
  const f64 other_trace = __shfl_xor_sync(kAllLanes, trace, 1), other_least = __shfl_xor_sync(kAllLanes, least, 1);
  const f64 last = 1 / ((diagonal[middle] + shift) - (taken + other_taken));
  least = other_least < least ? other_least : least;
  return {fma(1 + (added + other_added), last, trace + other_trace), last < least ? last : least};
}

SVMAX_DEVICE Interval spectral_interval(const Shared<f64>& diagonal, const Shared<f64>& off, int n) {
  constexpr double kEps = 2.220446049250313e-16;
  const f64 reach = gershgorin(diagonal, off, n);
  // Makes T positive definite against the rounding of the stages before, so that |P| <= 1 + 1e-8 always. With n eps
  // instead of 4 eps the nuclear norm is wrong by 3e-6 at collapse (ALGORITHM.md, trap 3).
  const f64 shift = 4 * kEps * reach;
  const InverseTrace inverse = inverse_trace(diagonal, off, n, shift);
  // The reciprocal of that trace is a lower bound of the spectrum, and costs no search for the smallest eigenvalue. A
  // pivot of the wrong sign: rounding has won over the shift, and the spectrum begins at zero.
  const f64 bound = 1 / inverse.trace;
  const f64 lowest = inverse.least > 0 && bound > shift ? bound : shift;
  return {shift, reach + shift, lowest, inverse.trace};
}

// z^(-1/2) ~ sum_j weight_j / (z + pole_j) on the interval.
struct Rule {
  int count;
  f64 root, highest;
  double m;  // of the rule for [m, 1]
  Mean agm;

  SVMAX_DEVICE explicit Rule(const Interval& interval)
      : root(sqrt(interval.highest)), highest(interval.highest), m(clamped(interval)), agm(m) {
    const int most = pole_count(log(double(interval.highest / interval.lowest)));
    count = most < kMostPoles ? most : kMostPoles;
  }
  SVMAX_DEVICE f64 pole(const Pole& at) const { return highest * f64(at.pole); }
  SVMAX_DEVICE f64 weight(const Pole& at) const { return root * f64(at.weight); }

 private:
  SVMAX_DEVICE static double clamped(const Interval& interval) {
    const double ratio = double(interval.lowest / interval.highest);
    return ratio < 0.5 ? ratio : 0.5;  // the elliptic functions of m = 1 are none
  }
};

struct PoleSums {
  f64 root_trace, inverse_root_trace;  // this lane's part of tr(T^(1/2)) and tr(T^(-1/2)), of T + shift
};

// Two lanes a pole; `threads` of them, whole warps, work at once.
SVMAX_DEVICE PoleSums sum_over_poles(const Shared<f64>& diagonal, const Shared<f64>& off, int n,
                                     const Interval& interval, const Rule& rule, int thread, int threads) {
  PoleSums sums{0, 0};
  for (int first = 0; first < rule.count; first += threads / 2) {
    const int j = first + thread / 2;
    const Pole at = quadrature_pole(j < rule.count ? j : rule.count - 1, rule.count, rule.m, rule.agm);
    const f64 pole = rule.pole(at), trace = inverse_trace(diagonal, off, n, interval.shift + pole).trace;
    if (j >= rule.count || thread % 2 == 1) continue;
    sums.root_trace = fma(rule.weight(at), fma(-pole, trace, f64(double(n))), sums.root_trace);
    sums.inverse_root_trace = fma(rule.weight(at), trace, sums.inverse_root_trace);
  }
  return sums;
}

// For poles thread, thread + threads, ... the factors of (T + shift + pole)^(-1), from the bottom up: ratio[i] couples
// i to i - 1, inverse[i] is the diagonal entry times the weight. Both [n, kPoleStride].
//
// The diagonal from g_i = 1 / q_i + r_i^2 g_(i-1), only positive terms; the textbook 1 / (q_i + e_i - t_i) cancels at
// rank deficiency (ALGORITHM.md, trap 2: |P| came out as 220).
SVMAX_DEVICE void factor_poles(const Shared<f64>& diagonal, const Shared<f64>& off, int n, const Interval& interval,
                               const Rule& rule, int thread, int threads, Global<f64> ratio, Global<f64> inverse) {
  for (int j = thread; j < rule.count; j += threads) {
    const Pole at = quadrature_pole(j, rule.count, rule.m, rule.agm);
    const f64 shift = interval.shift + rule.pole(at), weight = rule.weight(at);
    f64 reciprocal = 0;
    for (int i = n - 1; i >= 0; --i) {
      const f64 e = i < n - 1 ? f64(off[i]) : f64(0);
      reciprocal = 1 / fma(-e, e * reciprocal, diagonal[i] + shift);
      inverse[i * kPoleStride + j] = reciprocal;
    }
    constexpr int kTogether = 8;
    f64 g = 0;
    for (int first = 0; first < n; first += kTogether) {
      // Read ahead: for all the compiler knows, a write to `ratio` could be to what is read next, which would wait.
      f64 q[kTogether];
#pragma unroll
      for (int s = 0; s < kTogether; ++s) q[s] = inverse[(first + s < n ? first + s : n - 1) * kPoleStride + j];
#pragma unroll
      for (int s = 0; s < kTogether; ++s) {
        const int i = first + s;
        if (i >= n) continue;
        const f64 r = i > 0 ? -(off[i - 1] * q[s]) : f64(0);
        g = fma(r * r, g, q[s]);
        ratio[i * kPoleStride + j] = r;
        inverse[i * kPoleStride + j] = weight * g;
      }
    }
  }
}

}  // namespace svmax::cuda
