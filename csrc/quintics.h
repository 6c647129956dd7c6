// The odd quintics s (a + b s^2 + c s^4) that take every singular value to one, and how many rounds of them it takes:
// the numbers of cuda/polar_express.h, which says what they do to a matrix.
#pragma once
#include <algorithm>
#include <iterator>

namespace svmax {

struct Quintic {
  double a, b, c;
};

// The odd quintics p of least max |1 - p| on [l, u], from l = 1e-8, u = 1; then l <- p(l), u <- max p, and so on
// (tests/steps/test_quintics.py computes them anew). Ours: each is optimal on [max(l, 0.03 u), u]. Without that cushion
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

}  // namespace svmax
