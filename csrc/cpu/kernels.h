// The kernels of each instruction set (kernels.cpp), as plain functions on pointers: cpu.cpp takes the best table.
#pragma once
#include <cstdint>

#include "../matrix_view.h"
#include "../objective.h"
#include "../quadrature.h"
#include "pool.h"

namespace svmax {

struct Workspace;  // scratch memory, used again from matrix to matrix

struct Kernels {
  Workspace* (*new_workspace)();
  void (*delete_workspace)(Workspace*);

  // Stage `gram`: gram [n, n], row_norms [b] (when normalised), contiguous.
  void (*gram)(const MatrixView&, double* gram, double* row_norms, Workspace&, const Pool&);

  // Stage `spectral`: the nuclear norm; with inverse_sqrt [n, n] and its precision. Reads gram [n, n], contiguous.
  double (*spectral)(const double* gram, int64_t n, const QuadratureTable&, Workspace&, const Pool&);
  double (*spectral_with_inverse_sqrt)(const double* gram, int64_t n, double* inverse_sqrt, bool* in_float32,
                                       const QuadratureTable&, Workspace&, const Pool&);

  // Stage `backward`: dx [b, d] contiguous = grad * (E W or W E), through the normalisation.
  void (*backward)(const MatrixView&, double grad, const double* weight, bool in_float32, const double* row_norms,
                   void* dx, Workspace&, const Pool&);

  // `gram` and `spectral` in one, without the Gram matrix in between: f(N); with weight = f'(N) W and its precision.
  double (*objective)(const MatrixView&, const Objective&, double* row_norms, const QuadratureTable&, Workspace&,
                      const Pool&);
  double (*objective_with_weight)(const MatrixView&, const Objective&, double* weight, bool* in_float32,
                                  double* row_norms, const QuadratureTable&, Workspace&, const Pool&);

  // Singular values [n], descending; with the gram [n, n] that they are of.
  void (*singular_values)(const MatrixView&, double* values, double* row_norms, Workspace&, const Pool&);
  void (*singular_values_with_gram)(const MatrixView&, double* values, double* gram, double* row_norms, Workspace&,
                                    const Pool&);

  int64_t (*workspace_bytes)(const Workspace&);
};

#ifdef __aarch64__
namespace neon {
extern const Kernels kernels;
}
#else
namespace baseline {
extern const Kernels kernels;
}
#endif
#ifdef SVMAX_X86
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#endif

}  // namespace svmax
