// The polar factor P of E and W = G^(-1/2) by matrix products alone: the way of matrices that are too large for one
// thread block, since cuBLAS spreads a product over all multiprocessors, and their float64 tensor cores.
//
// Polar Express (Amsel et al. 2025) in Gram space: M <- M Q^2, Z <- Z Q with Q = aI + bM + cM^2. Each round takes a
// singular value s of E Z, a root of an eigenvalue of M, to s (a + b s^2 + c s^4), so that after all rounds all are one
// and Z is W. The number of rounds is fixed: nothing is read back, and a CUDA graph can capture it.
#pragma once
#include <iterator>
#include <limits>
#include <optional>

#include "embeddings.h"

namespace svmax::cuda {

struct Quintic {
  double a, b, c;
};

// The odd quintics p of least max |1 - p| on [l, u], from l = 1e-8, u = 1; then l <- p(l), u <- max p, and so on
// (tests/test_polar_express.py computes them anew). Ours: each is optimal on [max(l, 0.03 u), u]. Without that cushion
// the error of the first ones is almost one, so p is almost zero somewhere in the middle, and singular values there are
// made as small as the smallest: they pick up rounding errors that belong to those. Measured at n = 200, half of the
// rows being copies of the others: |P| = 14 without it, 1 + 5e-8 with it. It costs less than one round of 15.
constexpr Quintic kQuintics[] = {
    {7.362527758027793, -20.743395646172164, 15.160551758684578},
    {4.136986281610212, -3.6800291405199808, 0.8491818152913873},  // repeated: each time small s grow 4.14-fold
    {3.633358983004332, -3.0572397270150313, 0.6933212499211123},
    {2.4060381526885317, -1.7619603126449623, 0.42891563287432627},
    {1.904146136884145, -1.2820169462686124, 0.3782158312107216},
    {1.875008291442342, -1.2500092126828521, 0.3750009212694802},  // leaves |1 - s| <= 1.4e-8
};

// The first, the last four, and the second as often as is left between them.
constexpr Quintic quintic(int round, int rounds) {
  if (round == 0) return kQuintics[0];
  return kQuintics[std::max(1, int(std::size(kQuintics)) - (rounds - round))];
}

// Singular values from 1e-8 |E| on become one; smaller ones are left smaller.
constexpr int kRounds = 15;
// A Gram matrix has lost what is below 1e-8 |E| to rounding, and shows it as eigenvalues of either sign. Rounds enough
// to lift them all to one would lift the negative ones to minus one, and further: M Q^2 runs away there. So after this
// many rounds the product E Z, which has lost nothing, gives M anew.
constexpr int kRoundsBeforeRestart = 7;
// Where there is a Gram matrix and no E. From 7e-7 |E| on, so that W stays below 1e7 / |E| even where rounding has made
// eigenvalues of -4e-14 |G|: about what a Gram matrix of 1e5 equal rows has, summed one after the other.
constexpr int kRoundsOfGram = 12;
// Added to M there, in units of rounding: as the kernels shift T, so that |P| <= 1 + 2e-8 here too.
constexpr double kShiftOfGram = 4;
// The largest eigenvalue of M is at most 1 / this. One that is exactly the upper end of a round's interval is mapped to
// the upper end of the next, and rounding errors grow there every time.
constexpr double kMargin = 1.01;

// Z of the rounds [first, last) of all `rounds`, from M [m, n, n]. Four products a round, three one after the other;
// two in the last, and one less in the first.
inline Tensor run_rounds(Tensor m, int first, int last, int rounds) {
  const int64_t n = m.size(-1);
  const Tensor a_identity = aten::zeros(m, {n, n}), diagonal = aten::diagonal(a_identity);
  std::optional<Tensor> z;
  for (int round = first; round < last; ++round) {
    const Quintic p = quintic(round, rounds);
    torch::stable::fill_(diagonal, p.a);
    const Tensor q = aten::add(aten::add(a_identity, m, p.b), aten::matmul(m, m), p.c);
    z = z ? aten::matmul(*z, q) : q;
    if (round + 1 < last) m = aten::matmul(m, aten::matmul(q, q));
  }
  return *z;
}

// 1 / sqrt(kMargin |G|) [m, 1, 1], with the Frobenius norm, which is no less than the largest eigenvalue. Zero for a
// zero matrix: W is then zero, the subgradient of smallest norm. NaN where there is a NaN or inf.
inline Tensor scale_of(const Tensor& gram) {
  const Tensor size = aten::mul(aten::sqrt(aten::sum_of_matrices(aten::mul(gram, gram))), kMargin);
  return aten::div(aten::sqrt(size), aten::maximum(size, std::numeric_limits<double>::min()));
}

struct PolarFactor {
  Tensor p;  // [m, larger side, n]
  // W = left right [m, n, n]. They commute but for rounding errors times |W|, and those are large at collapse: (E left)
  // right is p, and keeps |P| <= 1 + 2e-7; E (right left) does not, nor does a symmetrised W.
  Tensor left, right;
};

// e [m, larger side, n]. 58 products: G, 25 before the restart, 2 for it, 29 after it, and P. W is one more.
inline PolarFactor polar_factor(const Tensor& e) {
  const Tensor gram = aten::matmul(aten::transpose(e), e), scale = scale_of(gram);
  const Tensor z = run_rounds(aten::mul(gram, aten::mul(scale, scale)), 0, kRoundsBeforeRestart, kRounds);
  const Tensor left = aten::mul(z, scale), x = aten::matmul(e, left);
  const Tensor right = run_rounds(aten::matmul(aten::transpose(x), x), kRoundsBeforeRestart, kRounds, kRounds);
  return {aten::matmul(x, right), left, right};
}

struct GramRoot {
  Tensor nuclear_norm;  // [m, 1, 1]
  Tensor inverse_sqrt;  // [m, n, n]
  Tensor lost;          // [m] n - tr(W G W): how much the singular values of P lack to one
};

// gram [m, n, n]; 47 products.
inline GramRoot root_of_gram(const Tensor& gram) {
  const int64_t n = gram.size(-1);
  const Tensor scale = scale_of(gram), shift = aten::zeros(gram, {n, n});
  torch::stable::fill_(aten::diagonal(shift), kShiftOfGram * std::numeric_limits<double>::epsilon());
  const Tensor m = aten::add(aten::mul(gram, aten::mul(scale, scale)), shift);
  const Tensor z = run_rounds(m, 0, kRoundsOfGram, kRoundsOfGram);
  const Tensor w = aten::mul(aten::add(z, aten::transpose(z)), aten::mul(scale, 0.5));
  // N = tr(W G (3I - W G W)) / 2: of second order in what |1 - s| is left, and without the shift.
  const Tensor wg = aten::matmul(w, gram), wgw = aten::matmul(wg, w);
  const Tensor trace = aten::sum_of_rows(aten::diagonal(wg));
  const Tensor correction = aten::sum_of_matrices(aten::mul(wg, aten::transpose(wgw)));
  const Tensor lost = aten::add(aten::number(double(n)), aten::sum_of_rows(aten::diagonal(wgw)), -1);
  return {aten::add(aten::mul(aten::reshape(trace, aten::Sizes{-1, 1, 1}), 1.5), correction, -0.5), w, lost};
}

}  // namespace svmax::cuda
