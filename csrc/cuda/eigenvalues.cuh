// Eigenvalues of a tridiagonal matrix by sections on the signs of the minors of T - x I: a fixed number of rounds for
// all of them at once, where QL would be one thread's work.
#pragma once
#include "threads_of_matrix.cuh"

namespace svmax::cuda {

// A bound of the eigenvalues' sizes of the tridiagonal T, in every lane of the warp that calls it.
SVMAX_DEVICE f64 gershgorin(const Shared<f64>& diagonal, const Shared<f64>& off, int n) {
  f64 reach = 0;
  for (int i = lane_index(); i < n; i += kWarp)
    reach = larger_or_nan(reach, fabs(diagonal[i]) + fabs(off[i]) + (i > 0 ? fabs(off[i - 1]) : f64(0)));
  return warp_max(reach);
}

// Absolute error a few eps times the largest: 2 M is cut to 2 M / 2^59.
constexpr int kEigenvalueBits = 59;

// The number of eigenvalues below x: changes of sign among the leading minors of T - x I. squares [n]: off[i]^2.
//
// By the recurrence of the minors themselves, not of the pivots, their quotients: a division takes four times as long
// as all the rest of a step.
SVMAX_DEVICE int count_below(const Shared<f64>& diagonal, const Shared<f64>& squares, int n, f64 x) {
  constexpr int kSteps = 4;  // between two looks at the size; G is scaled, so a step makes it grow by 2^12 at most
  constexpr double kSmall = 0x1p-200, kLarge = 0x1p200;
  f64 before = 1, now = diagonal[0] - x;
  if (now == 0) now = -kSmall;
  int count = now < 0 ? 1 : 0;
  for (int first = 1; first < n; first += kSteps) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int i = first + s;
      if (i >= n) continue;
      f64 next = fma(diagonal[i] - x, now, -(squares[i - 1] * before));
      // A pivot of zero stands for either sign; two minors of zero in a row would lose the count.
      if (next == 0) next = now < 0 ? kSmall : -kSmall;
      count += (next < 0) != (now < 0) ? 1 : 0;
      before = now;
      now = next;
    }
    const f64 size = fabs(now) > fabs(before) ? fabs(now) : fabs(before);
    const f64 factor = f64(size < kSmall ? kLarge * kLarge : size > kLarge ? kSmall * kSmall : 1.0);
    now = now * factor;
    before = before * factor;
  }
  return count;
}

// values [n], ascending, for T within [-highest, highest]; squares [n] is scratch. A few neighbouring threads share an
// eigenvalue and try as many points of its interval at once.
template <int N>
SVMAX_DEVICE void tridiagonal_eigenvalues(const Shared<f64>& diagonal, const Shared<f64>& off, int n, f64 highest,
                                          const Shared<f64>& squares, const Shared<f64>& values) {
  constexpr int kThreads = Team<N>::kThreads, kShare = kThreads >= 4 * N ? 4 : kThreads >= 2 * N ? 2 : 1;
  constexpr int kAtOnce = kThreads / kShare;
  constexpr int kRounds = kShare == 4 ? 26 : kShare == 2 ? 38 : kEigenvalueBits;  // by 5, by 3, by 2
  const int thread = Team<N>::thread(), part = thread % kShare;
  for (int i = thread; i < n; i += kThreads) squares[i] = off[i] * off[i];
  Team<N>::sync();
  for (int first = 0; first < n; first += kAtOnce) {
    const int which = first + thread / kShare;  // beyond n: works along with its warp, on the last one
    const int wanted = which < n ? which : n - 1;
    f64 low = -highest, high = highest;
    for (int round = 0; round < kRounds; ++round) {
      const f64 point = fma(high - low, f64(double(part + 1) / (kShare + 1)), low);
      const bool above = count_below(diagonal, squares, n, point) > wanted;
      f64 new_low = above ? low : point, new_high = above ? point : high;
#pragma unroll
      for (int mask = 1; mask < kShare; mask *= 2) {
        const f64 other_low = __shfl_xor_sync(kAllLanes, new_low, mask);
        const f64 other_high = __shfl_xor_sync(kAllLanes, new_high, mask);
        new_low = other_low > new_low ? other_low : new_low;
        new_high = other_high < new_high ? other_high : new_high;
      }
      low = new_low;
      high = new_high;
    }
    if (part == 0 && which < n) values[which] = 0.5 * (low + high);
  }
  Team<N>::sync();
}

// values [n]: eigenvalues of a Gram matrix, ascending -> their roots, without those that are rounding; returns the sum.
//
// A Gram matrix has no negative eigenvalues: those there are show how large the rounding of its sums was. Rounding has
// no sign, so where all eigenvalues of that size add up to almost nothing they are rounding too, and zero; true ones
// among them would show. Else, at rank one, 64 roots of 1e-16 would add 5e-7 to the nuclear norm.
template <int N>
SVMAX_DEVICE f64 roots_of_eigenvalues(const Shared<f64>& values, int n, f64 scale) {
  const int lane = lane_index();
  const f64 small = values[0] < 0 ? -8 * values[0] : f64(0), root = sqrt(scale);
  f64 sum = 0, size = 0;
  for (int i = lane; i < n; i += kWarp) {
    const f64 value = values[i];
    if (value > small) continue;
    sum = sum + value;
    size = size + fabs(value);
  }
  sum = warp_sum(sum);  // by every warp for itself
  size = warp_sum(size);
  const f64 smallest = fabs(sum) < 0.1 * size ? small : f64(0);
  f64 norm = 0;
  for (int i = lane; i < n; i += kWarp) {
    const f64 value = values[i];
    norm = norm + (value > smallest ? root * sqrt(value) : f64(0));
  }
  norm = warp_sum(norm);
  Team<N>::sync();
  for (int i = Team<N>::thread(); i < n; i += Team<N>::kThreads) {
    const f64 value = values[i];
    values[i] = value > smallest ? root * sqrt(value) : f64(0);
  }
  Team<N>::sync();
  return norm;
}

}  // namespace svmax::cuda
