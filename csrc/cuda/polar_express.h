// The polar factor P of E and W = G^(-1/2) by matrix products alone: the way of matrices that are too large for one
// thread block, since cuBLAS spreads a product over all multiprocessors, and their float64 tensor cores.
//
// Polar Express (Amsel et al. 2025) in Gram space: M <- M Q^2, Z <- Z Q with Q = aI + bM + cM^2. Each round takes a
// singular value s of E Z, a root of an eigenvalue of M, to s (a + b s^2 + c s^4), so that after all rounds all are one
// and Z is W (quintics.h has a, b and c). The number of rounds is fixed: nothing is read back, and a CUDA graph can
// capture it.
#pragma once
#include <limits>
#include <optional>

#include "../quintics.h"
#include "embeddings.h"

namespace svmax::cuda {

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
