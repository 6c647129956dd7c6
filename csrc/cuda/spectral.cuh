// Stage `spectral`: the nuclear norm N = tr(G^(1/2)) and the objective's value, and all that W = G^(-1/2) takes but its
// last step (transform.cuh); or the singular values. One team of threads a matrix.
#pragma once
#include "../objective.h"
#include "eigenvalues.cuh"
#include "gram.cuh"
#include "inverse_sqrt.cuh"
#include "tridiagonal.cuh"

namespace svmax::cuda {

// Where float32 arithmetic is enough, by q = sqrt(tr(G) tr(G^-1)) / n: as csrc/cpu/spectral.h, where they are derived.
constexpr double kSpreadForFloatTransform = 4;
constexpr double kSpreadForFloatProduct = 10;
// float32 has no room for W outside of these sizes; ordinary embeddings are nowhere near them.
constexpr double kFloatRange = 1e15;
// The shift that keeps T positive definite adds (shift / 2) tr(T^(-1/2)) to the nuclear norm. Where that is more than
// this part of it the norm comes from eigenvalues; the poles themselves are good to 4e-9.
constexpr double kErrorForEigenvalues = 1e-8;

// The result of a launch.
enum class Result {
  Objective,       // spectral_kernel: f(N)
  NuclearNorm,     // spectral_kernel: N
  SingularValues,  // singular_values_kernel: all of them
  LostNorm,        // singular_values_kernel: N, for the matrices for which products have lost it
};

struct SpectralOptions {
  Parts gram;
  int matrices;
  Result result;
  Objective objective;             // f, whose slope multiplies W
  Global<f32> value;               // [matrices], written for Objective
  Global<f64> nuclear_norm;        // [matrices], written for NuclearNorm and LostNorm
  Global<f32> singular_values;     // [matrices, n], written for SingularValues, descending
  Global<const f64> lost;          // [matrices], read for LostNorm: a matrix above kMostLost is one of those
  bool need_inverse_sqrt = false;  // whether spectral_kernel writes the factors of W
  Factors factors = {};
  bool in_work = false;   // whether a matrix lies in `work`, since neither registers nor shared memory hold it
  Global<f64> work = {};  // [matrices, n, n]

  static SpectralOptions for_objective(Parts gram, int64_t matrices, const Objective& objective, Global<f32> value) {
    return {gram, int(matrices), Result::Objective, objective, value, {}, {}, {}};
  }
  static SpectralOptions for_norm(Parts gram, int64_t matrices, Global<f64> nuclear_norm) {
    return {gram, int(matrices), Result::NuclearNorm, Objective::linear(1), {}, nuclear_norm, {}, {}};
  }
  static SpectralOptions for_singular_values(Parts gram, int64_t matrices, Global<f32> singular_values) {
    return {gram, int(matrices), Result::SingularValues, Objective::linear(1), {}, {}, singular_values, {}};
  }
  static SpectralOptions for_lost_norm(Parts gram, int64_t matrices, Global<const f64> lost, Global<f64> nuclear_norm) {
    return {gram, int(matrices), Result::LostNorm, Objective::linear(1), {}, nuclear_norm, {}, lost};
  }
  SpectralOptions with_inverse_sqrt(const Factors& written) const {
    SpectralOptions result = *this;
    result.need_inverse_sqrt = true;
    result.factors = written;
    return result;
  }
};

// Matrix products (polar_express.h) give the nuclear norm to second order of what a singular value of P lacks to one. A
// sum of this over all of them, in values that are small themselves, shows in the tenth digit of the norm.
constexpr double kMostLost = 0.05;

// Numbers that one warp finds and its team reads.
enum Scalars {
  kShift,
  kHighest,
  kLowest,
  kInverseTrace,
  kRootTrace,
  kInverseRootTrace = kRootTrace + 8,
  kScalars = 20
};

// One team's share of the block's shared memory.
template <int N>
SVMAX_DEVICE void skip_space(SharedMemory& memory) {
  TridiagonalSpace<N>{memory};
  memory.take<f64>(kScalars);
}

template <int N>
SVMAX_DEVICE Shared<f64> matrix_space(SharedMemory& memory, const SpectralOptions& options) {
  return memory.take<f64>(Layout<N>::kInRegisters || options.in_work ? 0 : options.gram.n * options.gram.n);
}

template <int N>
constexpr int spectral_shared_bytes(bool matrix_in_shared, int n) {
  return Layout<N>::kTeams * (TridiagonalSpace<N>::bytes() + shared_bytes<f64>(kScalars)) +
         (matrix_in_shared ? shared_bytes<f64>(n * n) : 0);
}

// G = scale * Q T Q', T in shared memory. scale: a power of four, so that its root is exact; 0 for a zero matrix, NaN
// for NaN or inf. keep: whether the reflectors [n, N] are.
template <int N>
SVMAX_DEVICE f64 reduce(const SpectralOptions& options, int64_t matrix, const TridiagonalSpace<N>& t,
                        Shared<f64> in_shared, bool keep, Global<f64> reflectors) {
  using L = Layout<N>;
  const int n = options.gram.n, lane = lane_index(), warp = Team<N>::warp();
  const Global<const f64> gram = options.gram.first(matrix);
  f64 largest = 0;
  for (int i = lane; i < n; i += kWarp) largest = larger_or_nan(largest, fabs(options.gram.sum(gram, i * n + i)));
  largest = warp_max(largest);
  const bool usable = largest > 0 && largest < INFINITY;
  int exponent = 0;
  if (usable) frexp(largest, &exponent);
  exponent -= exponent & 1;
  const f64 factor = ldexp(f64(1), -exponent);

  if constexpr (L::kInRegisters) {
    // One part of the sums after the other for all entries, not one entry after the other, and rows in whole groups:
    // then reads overlap. For a row beyond n the last one is read, and not used.
    f64 a[L::kRows][L::kColumns] = {}, row[L::kColumns] = {};
    constexpr int kTogether = 8;
#pragma unroll 1
    for (int s = 0; s < options.gram.splits; ++s) {
#pragma unroll
      for (int c = 0; c < L::kColumns; ++c) {
        const int j = lane + kWarp * c;
        if (j >= n) continue;
        const Global<const f64> column = gram + int64_t(s) * n * n + j;
        row[c] = row[c] + column[(n - 1) * n];
#pragma unroll
        for (int r0 = 0; r0 < L::kRows; r0 += kTogether) {
          if (warp + L::kWarps * r0 >= n) continue;
          f64 read[kTogether];
#pragma unroll
          for (int q = 0; q < kTogether; ++q) {
            const int i = warp + L::kWarps * (r0 + q);
            read[q] = column[(i < n ? i : n - 1) * n];
          }
#pragma unroll
          for (int q = 0; q < kTogether; ++q)
            a[r0 + q][c] = a[r0 + q][c] + (warp + L::kWarps * (r0 + q) < n ? read[q] : f64(0));
        }
      }
    }
#pragma unroll
    for (int c = 0; c < L::kColumns; ++c) {
      row[c] = factor * row[c];
#pragma unroll
      for (int r = 0; r < L::kRows; ++r) a[r][c] = factor * a[r][c];
    }
    tridiagonalize<N>(a, row, n, t, keep, reflectors);
  } else {
    const auto in_memory = [&](auto a) {
      for (int at = Team<N>::thread(); at < n * n; at += L::kThreads) a[at] = factor * options.gram.sum(gram, at);
      Team<N>::sync();
      tridiagonalize<N>(a, n, t, keep, reflectors);
    };
    if (options.in_work)
      in_memory(options.work + matrix * n * n);
    else
      in_memory(in_shared);
  }

  f64 sum = 0;
  for (int i = lane; i < n; i += kWarp) sum = sum + fabs(t.diagonal[i]) + fabs(t.off[i]);
  sum = warp_sum(sum);
  if (!(sum < INFINITY) || !(largest < INFINITY)) return NAN;
  return largest == 0 ? f64(0) : ldexp(f64(1), exponent);
}

// The nuclear norm of the matrix whose T is in shared memory, and its factors where they are wanted.
template <int N>
SVMAX_DEVICE f64 nuclear_norm(const SpectralOptions& options, int64_t matrix, const TridiagonalSpace<N>& t, f64 scale,
                              const Shared<f64>& scalars) {
  constexpr bool kAlone = Team<N>::kWarps == 1;
  constexpr int kThreads = Team<N>::kThreads, kHalf = kAlone ? kThreads : kThreads / 2;
  const int n = options.gram.n, thread = Team<N>::thread(), warp = Team<N>::warp();
  const Factors& factors = options.factors;
  // Only the first warp works, the others wait: chains of divisions are what this step takes.
  if (warp == 0) {
    const Interval interval = spectral_interval(t.diagonal, t.off, n);
    if (thread == 0) {
      scalars[kShift] = interval.shift;
      scalars[kHighest] = interval.highest;
      scalars[kLowest] = interval.lowest;
      scalars[kInverseTrace] = interval.inverse_trace;
    }
  }
  Team<N>::sync();
  const Interval interval{scalars[kShift], scalars[kHighest], scalars[kLowest], scalars[kInverseTrace]};
  const Rule rule(interval);
  // Half of the warps for the nuclear norm, the others for the factors; one warp does both.
  if (thread < kHalf) {
    const PoleSums sums = sum_over_poles(t.diagonal, t.off, n, interval, rule, thread, kHalf);
    const f64 part = warp_sum(sums.root_trace), inverse_part = warp_sum(sums.inverse_root_trace);
    if (lane_index() == 0) {
      scalars[kRootTrace + warp] = part;
      scalars[kInverseRootTrace + warp] = inverse_part;
    }
  }
  if (options.need_inverse_sqrt && (kAlone || thread >= kHalf)) {
    const int64_t at = matrix * n * kPoleStride;
    factor_poles(t.diagonal, t.off, n, interval, rule, kAlone ? thread : thread - kHalf, kHalf, factors.ratio + at,
                 factors.inverse + at);
  }
  Team<N>::sync();
  f64 root_trace = 0, inverse_root_trace = 0;
  for (int w = 0; w < kHalf / kWarp; ++w) {
    root_trace = root_trace + scalars[kRootTrace + w];
    inverse_root_trace = inverse_root_trace + scalars[kInverseRootTrace + w];
  }
  f64 norm = sqrt(scale) * root_trace;
  if (!(0.5 * interval.shift * inverse_root_trace <= kErrorForEigenvalues * root_trace)) {
    tridiagonal_eigenvalues<N>(t.diagonal, t.off, n, interval.highest, t.p, t.row);
    norm = roots_of_eigenvalues<N>(t.row, n, scale);
  }
  if (!options.need_inverse_sqrt) return norm;

  f64 trace = 0;
  for (int i = lane_index(); i < n; i += kWarp) trace = trace + t.diagonal[i];
  trace = warp_sum(trace);
  const f64 spread = sqrt(trace * interval.inverse_trace) / double(n);
  const f64 factor = options.objective.slope(norm) / sqrt(scale), size = fabs(factor);
  const bool fits = size < kFloatRange && size > 1 / kFloatRange && scale < kFloatRange && scale > 1 / kFloatRange;
  const bool in_float32 = fits && spread <= kSpreadForFloatProduct;
  if (thread == 0) {
    const Global<f64> plan = factors.plan + matrix * Factors::kPlan;
    plan[Factors::kCount] = f64(double(rule.count));
    plan[Factors::kFactor] = factor;
    plan[Factors::kPrecision] = f64(double(!in_float32                          ? kFloat64
                                           : spread <= kSpreadForFloatTransform ? kFloat32
                                                                                : kRoundedToFloat32));
    factors.in_float32[matrix] = in_float32;
  }
  return norm;
}

// grid (ceil(matrices / teams)): the objective, and the factors of W where a gradient is wanted.
template <int N>
SVMAX_KERNEL(Layout<N>::kThreads* Layout<N>::kTeams, 1)
spectral_kernel(SpectralOptions options) {
  SharedMemory memory;
  const int64_t matrix = int64_t(blockIdx.x) * Layout<N>::kTeams + Team<N>::index();
  for (int team = 0; team < Team<N>::index(); ++team) skip_space<N>(memory);
  const TridiagonalSpace<N> t(memory);
  const Shared<f64> scalars = memory.take<f64>(kScalars);
  if (matrix >= options.matrices) return;
  const int n = options.gram.n;
  const Factors& factors = options.factors;
  const bool keep = options.need_inverse_sqrt;
  const f64 scale = reduce<N>(options, matrix, t, matrix_space<N>(memory, options), keep,
                              keep ? factors.reflectors + matrix * n * N : factors.reflectors);
  // For every matrix: transform.cuh applies the reflectors of a zero matrix to zeros, which old memory could make NaN.
  if (keep)
    for (int i = Team<N>::thread(); i < n; i += Team<N>::kThreads) factors.beta[matrix * n + i] = t.beta[i];
  f64 norm = scale;  // a zero matrix: N = 0; NaN and inf: NaN throughout
  if (scale > 0) {
    norm = nuclear_norm<N>(options, matrix, t, scale, scalars);
  } else if (keep && Team<N>::thread() == 0) {
    // No poles, so that W is a sum of nothing times this: zero is the subgradient of smallest norm.
    factors.plan[matrix * Factors::kPlan + Factors::kCount] = f64(0);
    factors.plan[matrix * Factors::kPlan + Factors::kFactor] = scale;
    factors.plan[matrix * Factors::kPlan + Factors::kPrecision] = f64(double(kFloat64));
    factors.in_float32[matrix] = scale == 0;
  }
  if (Team<N>::thread() != 0) return;
  if (options.result == Result::Objective)
    options.value[matrix] = f32(options.objective.value(norm));
  else
    options.nuclear_norm[matrix] = norm;
}

// grid (ceil(matrices / teams)): the singular values, or their sum where it was lost.
template <int N>
SVMAX_KERNEL(Layout<N>::kThreads* Layout<N>::kTeams, 1)
singular_values_kernel(SpectralOptions options) {
  SharedMemory memory;
  const int64_t matrix = int64_t(blockIdx.x) * Layout<N>::kTeams + Team<N>::index();
  for (int team = 0; team < Team<N>::index(); ++team) skip_space<N>(memory);
  const TridiagonalSpace<N> t(memory);
  memory.take<f64>(kScalars);
  if (matrix >= options.matrices) return;
  const bool lost_norm = options.result == Result::LostNorm;
  if (lost_norm && !(options.lost[matrix] > kMostLost)) return;
  const int n = options.gram.n;
  const f64 scale = reduce<N>(options, matrix, t, matrix_space<N>(memory, options), false, options.factors.reflectors);
  f64 norm = scale;
  if (scale > 0) {
    tridiagonal_eigenvalues<N>(t.diagonal, t.off, n, gershgorin(t.diagonal, t.off, n), t.p, t.row);
    norm = roots_of_eigenvalues<N>(t.row, n, scale);
  }
  if (lost_norm) {
    if (Team<N>::thread() == 0) options.nuclear_norm[matrix] = norm;
    return;
  }
  for (int i = Team<N>::thread(); i < n; i += Team<N>::kThreads)
    options.singular_values[matrix * n + i] = f32(scale > 0 ? f64(t.row[n - 1 - i]) : scale);
}

}  // namespace svmax::cuda
