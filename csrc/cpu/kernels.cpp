// The CPU kernels for one instruction set, SVMAX_ISA: CMakeLists.txt compiles this file once for each.
#include "kernels.h"

#include "backward.h"
#include "spectral.h"

namespace svmax {

namespace SVMAX_ISA {
namespace {

struct Spaces {
  GramWorkspace gram;
  SpectralWorkspace spectral;
  BackwardWorkspace backward;
};
Spaces& spaces(Workspace& workspace) { return reinterpret_cast<Spaces&>(workspace); }

template <typename scalar_t>
Rows<scalar_t> rows_of(const MatrixView& matrix) {
  return {static_cast<const scalar_t*>(matrix.x),
          matrix.b,
          matrix.d,
          matrix.row_stride,
          matrix.column_stride,
          matrix.normalize,
          matrix.center};
}

// f(rows) with the rows in the matrix's own type.
template <typename F>
void with_rows(const MatrixView& matrix, const F& f) {
  switch (matrix.scalar) {
    case Scalar::Half:
      return f(rows_of<Half>(matrix));
    case Scalar::BFloat16:
      return f(rows_of<BFloat16>(matrix));
    case Scalar::Float:
      return f(rows_of<float>(matrix));
    case Scalar::Double:
      return f(rows_of<double>(matrix));
  }
}

// The Gram matrix in the spectral stage's own memory.
Panels<double> gram_in_place(const MatrixView& matrix, double* row_norms, Spaces& space, const Pool& pool) {
  const int64_t n = smaller(matrix.b, matrix.d);
  const Panels<double> g(space.spectral.g.reserve(Panels<double>::size(n)), n);
  with_rows(matrix, [&](const auto& rows) { gram_panels(rows, g, row_norms, space.gram, pool); });
  return g;
}

void gram(const MatrixView& matrix, double* out, double* row_norms, Workspace& workspace, const Pool& pool) {
  gram_in_place(matrix, row_norms, spaces(workspace), pool).write_symmetric(1.0, out);
}

Tridiagonal reduce_copy(const double* gram, int64_t n, SpectralWorkspace& space) {
  const Panels<double> g(space.g.reserve(Panels<double>::size(n)), n);
  g.read_symmetric(gram);
  return reduce(g, space);
}

double spectral(const double* gram, int64_t n, const QuadratureTable& table, Workspace& workspace, const Pool&) {
  SpectralWorkspace& space = spaces(workspace).spectral;
  PoleFactors factors;
  return nuclear_norm(reduce_copy(gram, n, space), table, factors, space);
}

double spectral_with_inverse_sqrt(const double* gram, int64_t n, double* w, bool* in_float32,
                                  const QuadratureTable& table, Workspace& workspace, const Pool& pool) {
  SpectralWorkspace& space = spaces(workspace).spectral;
  const Tridiagonal t = reduce_copy(gram, n, space);
  PoleFactors factors;
  const double norm = nuclear_norm(t, table, factors, space);
  *in_float32 = inverse_sqrt(t, factors, 1.0, w, space, pool);
  return norm;
}

double objective(const MatrixView& matrix, const Objective& objective, double* row_norms, const QuadratureTable& table,
                 Workspace& workspace, const Pool& pool) {
  Spaces& space = spaces(workspace);
  const Tridiagonal t = reduce(gram_in_place(matrix, row_norms, space, pool), space.spectral);
  PoleFactors factors;
  return objective.value(nuclear_norm(t, table, factors, space.spectral));
}

double objective_with_weight(const MatrixView& matrix, const Objective& objective, double* weight, bool* in_float32,
                             double* row_norms, const QuadratureTable& table, Workspace& workspace, const Pool& pool) {
  Spaces& space = spaces(workspace);
  const Tridiagonal t = reduce(gram_in_place(matrix, row_norms, space, pool), space.spectral);
  PoleFactors factors;
  const double norm = nuclear_norm(t, table, factors, space.spectral);
  *in_float32 = inverse_sqrt(t, factors, objective.slope(norm), weight, space.spectral, pool);
  return objective.value(norm);
}

void backward(const MatrixView& matrix, double grad, const double* weight, bool in_float32, const double* row_norms,
              void* dx, Workspace& workspace, const Pool& pool) {
  with_rows(matrix, [&](const auto& rows) {
    backward_rows(rows, grad, weight, in_float32, row_norms, dx, spaces(workspace).backward, pool);
  });
}

void values_of(const Panels<double>& g, double* values, SpectralWorkspace& space) {
  const Tridiagonal t = reduce(g, space);
  if (t.scale > 0)
    roots_of_eigenvalues(t, values, space);
  else
    for (int64_t i = 0; i < t.n; ++i) values[i] = t.scale;
}

void singular_values(const MatrixView& matrix, double* values, double* row_norms, Workspace& workspace,
                     const Pool& pool) {
  Spaces& space = spaces(workspace);
  values_of(gram_in_place(matrix, row_norms, space, pool), values, space.spectral);
}

void singular_values_with_gram(const MatrixView& matrix, double* values, double* gram, double* row_norms,
                               Workspace& workspace, const Pool& pool) {
  Spaces& space = spaces(workspace);
  const Panels<double> g = gram_in_place(matrix, row_norms, space, pool);
  g.write_symmetric(1.0, gram);
  values_of(g, values, space.spectral);
}

int64_t workspace_bytes(const Workspace& workspace) {
  const Spaces& space = reinterpret_cast<const Spaces&>(workspace);
  const auto bytes = [](const auto&... buffers) { return (buffers.bytes() + ...); };
  const SpectralWorkspace& s = space.spectral;
  const BackwardWorkspace& back = space.backward;
  return bytes(space.gram.packed, space.gram.mean, space.gram.row, s.g, s.reflectors, s.tridiagonal, s.vectors, s.poles,
               s.w, s.panels, s.float_w, s.float_panels, back.mean, back.row, back.weight_mean, back.w64, back.e64,
               back.block64, back.w32, back.e32, back.block32);
}

Workspace* new_workspace() { return reinterpret_cast<Workspace*>(new Spaces); }
void delete_workspace(Workspace* workspace) { delete reinterpret_cast<Spaces*>(workspace); }

}  // namespace

const Kernels kernels = {.new_workspace = new_workspace,
                         .delete_workspace = delete_workspace,
                         .gram = gram,
                         .spectral = spectral,
                         .spectral_with_inverse_sqrt = spectral_with_inverse_sqrt,
                         .backward = backward,
                         .objective = objective,
                         .objective_with_weight = objective_with_weight,
                         .singular_values = singular_values,
                         .singular_values_with_gram = singular_values_with_gram,
                         .workspace_bytes = workspace_bytes};

}  // namespace SVMAX_ISA
}  // namespace svmax
