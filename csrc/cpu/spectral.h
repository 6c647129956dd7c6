// Stage `spectral`: the nuclear norm N = tr(G^(1/2)) and W = G^(-1/2) of a Gram matrix, without eigenvectors.
#pragma once
#include "../quadrature.h"
#include "eigenvalues.h"
#include "gram.h"
#include "inverse_sqrt.h"
#include "tridiagonal.h"

namespace svmax::SVMAX_ISA {

// Where float32 arithmetic is enough. The rounding of W shows in P times the singular values, so its error there is
// about eps times q = sqrt(tr(G) tr(G^-1)) / n, root mean square of s times that of 1 / s: 1 when all are equal, 2.9
// for a random 144x128 batch. Measured, n = 9 to 300: 5e-7 q with W computed in float32, 1.5e-7 q with W rounded to
// float32 and multiplied so. The condition number alone would not do: at kappa(G) = 100 with half of them small q is 5.
constexpr double kSpreadForFloatTransform = 4;
constexpr double kSpreadForFloatProduct = 10;
// Beyond it the shift that keeps T positive definite shows in the sum over the poles; N then comes from eigenvalues.
constexpr double kConditionForEigenvalues = 1e10;
// Size from which reflectors are applied 32 at a time, not 16: 1 % slower at n = 128, 4 % faster at 512.
constexpr int64_t kLargeTransform = 256;
// float32 has no room for W outside of these sizes; ordinary embeddings are nowhere near them.
constexpr double kFloatRange = 1e15;

struct SpectralWorkspace {
  Buffer<double> g, reflectors, tridiagonal, vectors, poles, w, panels;
  Buffer<float> float_w, float_panels;
};

// G = scale * Q T Q': what the second half of the stage needs of the first.
struct Tridiagonal {
  int64_t n, row;
  double scale;  // a power of four, so that its root is exact; 0 for a zero matrix, NaN for NaN or inf
  double *reflectors, *diagonal, *off, *beta;
};

inline Tridiagonal reduce(const Panels<double>& g, SpectralWorkspace& space) {
  const int64_t n = g.n, row = leading_dimension<double>(g.rows);
  double largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double x = g.element(i, i);
    if (!(std::fabs(x) <= largest)) largest = std::fabs(x);  // written so that a NaN is kept
    if (largest != largest) break;
  }
  if (largest == 0 || !(largest < INFINITY))
    return {n, row, largest == 0 ? 0.0 : double(NAN), nullptr, nullptr, nullptr, nullptr};
  int exponent;
  std::frexp(largest, &exponent);
  exponent -= exponent & 1;
  if (exponent != 0) g.scale(std::ldexp(1.0, -exponent));
  double* work = space.tridiagonal.reserve(3 * row + 3 * n);
  double* diagonal = work + 3 * row;
  Tridiagonal t{n,        row,          std::ldexp(1.0, exponent), space.reflectors.reserve(n * row),
                diagonal, diagonal + n, diagonal + 2 * n};
  tridiagonalize(g, t.reflectors, row, t.diagonal, t.off, t.beta, work);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::fabs(t.diagonal[i]) + std::fabs(t.off[i]);
  if (!(sum < INFINITY)) t.scale = NAN;  // NaN or inf off the diagonal of a matrix that was given to this stage alone
  return t;
}

inline double trace(const Tridiagonal& t) {
  double sum = 0;
  for (int64_t i = 0; i < t.n; ++i) sum += t.diagonal[i];
  return sum;
}

// Sorted singular values: the roots of T's eigenvalues.
inline void roots_of_eigenvalues(const Tridiagonal& t, double* values, SpectralWorkspace& space) {
  double* off = space.vectors.reserve(t.n);
  std::memcpy(values, t.diagonal, size_t(t.n) * sizeof(double));
  std::memcpy(off, t.off, size_t(t.n) * sizeof(double));
  tridiagonal_eigenvalues(values, off, t.n);
  // A Gram matrix has no negative eigenvalues: those there are show how large the rounding of its sums was. Rounding
  // has no sign, so where all eigenvalues of that size add up to almost nothing they are rounding too, and zero; true
  // ones among them would show. Else, at rank one, 64 roots of 1e-16 would add 5e-7 to the nuclear norm.
  double least = 0, sum = 0, size = 0;
  for (int64_t i = 0; i < t.n; ++i) least = values[i] < least ? values[i] : least;
  const double small = -8 * least;
  for (int64_t i = 0; i < t.n; ++i) {
    if (values[i] > small) continue;
    sum += values[i];
    size += std::fabs(values[i]);
  }
  const double smallest = std::fabs(sum) < 0.1 * size ? small : 0;
  const double root = std::sqrt(t.scale);
  for (int64_t i = 0; i < t.n; ++i) values[i] = values[i] > smallest ? root * std::sqrt(values[i]) : 0;
  for (int64_t i = 1; i < t.n; ++i) {  // insertion: QL leaves them nearly in order
    const double x = values[i];
    int64_t j = i;
    for (; j > 0 && values[j - 1] < x; --j) values[j] = values[j - 1];
    values[j] = x;
  }
}

// W as its poles, and the factors of (T + shift + pole)^(-1) for each: all but Q.
struct PoleFactors {
  Poles poles;
  double *ratio, *inverse;  // [n, poles.stride], see factor_poles
};

// The nuclear norm, and the factors for inverse_sqrt.
inline double nuclear_norm(const Tridiagonal& t, const QuadratureTable& table, PoleFactors& factors,
                           SpectralWorkspace& space) {
  const int64_t n = t.n;
  if (!(t.scale > 0)) return t.scale;  // a zero matrix: N = 0; else NaN
  Poles& poles = factors.poles;
  choose_poles(t.diagonal, t.off, n, table, poles);
  factors.ratio = space.poles.reserve(2 * n * poles.stride);
  factors.inverse = factors.ratio + n * poles.stride;
  double norm = std::sqrt(t.scale) * factor_poles(t.diagonal, t.off, n, poles, factors.ratio, factors.inverse);
  if (!(poles.highest <= kConditionForEigenvalues * poles.lowest)) {
    double* values = space.w.reserve(n);
    roots_of_eigenvalues(t, values, space);
    norm = 0;
    for (int64_t i = n - 1; i >= 0; --i) norm += values[i];
  }
  return norm;
}

// w [n, n] = factor times T^(-1/2) between Q and Q', computed in T, rounded to R.
template <typename T, typename R>
inline void inverse_sqrt_as(const Tridiagonal& t, const PoleFactors& factors, double factor, double* w,
                            Buffer<T>& memory, Buffer<T>& panels_memory, const Pool& pool) {
  const Panels<T> panels(memory.reserve(Panels<T>::size(t.n)), t.n);
  sum_poles(factors.poles, factors.ratio, factors.inverse, panels, pool);
  if (t.n < kLargeTransform)
    back_transform<16>(panels, t.reflectors, t.row, t.beta, panels_memory, pool);
  else
    back_transform<32>(panels, t.reflectors, t.row, t.beta, panels_memory, pool);
  panels.template write_symmetric<R>(factor, w);
}

// w [n, n] = slope * W. Returns its precision: whether all of it is float32 numbers, whose products float32 will do
// for.
inline bool inverse_sqrt(const Tridiagonal& t, const PoleFactors& factors, double slope, double* w,
                         SpectralWorkspace& space, const Pool& pool) {
  const int64_t n = t.n;
  if (!(t.scale > 0)) {  // a zero matrix has the subgradient of smallest norm; else NaN throughout
    for (int64_t i = 0; i < n * n; ++i) w[i] = t.scale;
    return t.scale == 0;
  }
  const double spread = std::sqrt(trace(t) * inverse_trace(t.diagonal, t.off, n, factors.poles.shift)) / double(n);
  const double factor = slope / std::sqrt(t.scale), size = std::fabs(slope) / std::sqrt(t.scale);
  const bool fits = size < kFloatRange && size > 1 / kFloatRange && t.scale < kFloatRange && t.scale > 1 / kFloatRange;
  const bool in_float32 = fits && spread <= kSpreadForFloatProduct;
  if (fits && spread <= kSpreadForFloatTransform)
    inverse_sqrt_as<float, float>(t, factors, factor, w, space.float_w, space.float_panels, pool);
  else if (in_float32)
    inverse_sqrt_as<double, float>(t, factors, factor, w, space.w, space.panels, pool);
  else
    inverse_sqrt_as<double, double>(t, factors, factor, w, space.w, space.panels, pool);
  return in_float32;
}

}  // namespace svmax::SVMAX_ISA
