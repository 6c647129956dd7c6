// What kernels.cpp offers for each instruction set, as plain functions on pointers: cpu.cpp takes the best table.
#pragma once
#include <cstdint>

#include "../input.h"
#include "../objective.h"
#include "../quadrature.h"
#include "pool.h"

namespace svmax {

struct Workspace;  // scratch memory, used again from matrix to matrix

struct Kernels {
  Workspace* (*new_workspace)();
  void (*delete_workspace)(Workspace*);

  // Stage `gram`: gram [n, n], row_norms [b] (when normalised), contiguous.
  void (*gram)(const Input&, double* gram, double* row_norms, Workspace&, const Pool&);

  // Stage `spectral`: the nuclear norm, and inverse_sqrt [n, n] unless that is null. Reads gram [n, n], contiguous.
  double (*spectral)(const double* gram, int64_t n, double* inverse_sqrt, const QuadratureTable&, Workspace&,
                     const Pool&);

  // Stage `backward`: dx [b, d] contiguous = grad * (E W or W E), through the normalisation.
  void (*backward)(const Input&, double grad, const double* weight, const double* row_norms, void* dx, Workspace&,
                   const Pool&);

  // `gram` and `spectral` in one, without the Gram matrix in between: returns f(N); weight = f'(N) W unless null.
  double (*objective)(const Input&, const Objective&, double* weight, double* row_norms, const QuadratureTable&,
                      Workspace&, const Pool&);

  // Singular values [n], descending; gram [n, n] is kept for the backward unless null.
  void (*singular_values)(const Input&, double* values, double* gram, double* row_norms, Workspace&, const Pool&);

  // The rows of E [b, d] in float64: what torch.linalg gets for float64 input.
  void (*embeddings)(const Input&, double* e, double* row_norms, Workspace&);

  // out [n, n] = sum_k factor[k] v_k v_k', for n vectors of n entries: W from singular vectors or eigenvectors.
  void (*sum_of_outer_products)(const double* vectors, int64_t vector_stride, int64_t entry_stride,
                                const double* factor, int64_t n, double* out, Workspace&);

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
