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
Rows<scalar_t> rows_of(const Input& input) {
  return {static_cast<const scalar_t*>(input.x),
          input.b,
          input.d,
          input.row_stride,
          input.column_stride,
          input.normalize,
          input.center};
}

// f(rows) with the rows in the input's own type.
template <typename F>
void with_rows(const Input& input, const F& f) {
  switch (input.scalar) {
    case Scalar::Half:
      return f(rows_of<Half>(input));
    case Scalar::BFloat16:
      return f(rows_of<BFloat16>(input));
    case Scalar::Float:
      return f(rows_of<float>(input));
    case Scalar::Double:
      return f(rows_of<double>(input));
  }
}

// The Gram matrix of the input in the spectral stage's own memory.
Panels<double> gram_in_place(const Input& input, double* row_norms, Spaces& space, const Pool& pool) {
  const int64_t n = smaller(input.b, input.d);
  const Panels<double> g(space.spectral.g.reserve(Panels<double>::size(n)), n);
  with_rows(input, [&](const auto& rows) { gram_panels(rows, g, row_norms, space.gram, pool); });
  return g;
}

void gram(const Input& input, double* out, double* row_norms, Workspace& workspace, const Pool& pool) {
  gram_in_place(input, row_norms, spaces(workspace), pool).write_symmetric(1.0, out);
}

double spectral(const double* gram, int64_t n, double* inverse_sqrt, const QuadratureTable& table, Workspace& workspace,
                const Pool& pool) {
  SpectralWorkspace& space = spaces(workspace).spectral;
  const Panels<double> g(space.g.reserve(Panels<double>::size(n)), n);
  g.read_symmetric(gram);
  const Tridiagonal t = reduce(g, space);
  return nuclear_norm_and_inverse_sqrt(t, inverse_sqrt, [](double) { return 1.0; }, table, space, pool);
}

double objective(const Input& input, const Objective& objective, double* weight, double* row_norms,
                 const QuadratureTable& table, Workspace& workspace, const Pool& pool) {
  Spaces& space = spaces(workspace);
  const Tridiagonal t = reduce(gram_in_place(input, row_norms, space, pool), space.spectral);
  const auto slope = [&](double norm) { return objective.slope(norm); };
  return objective.value(nuclear_norm_and_inverse_sqrt(t, weight, slope, table, space.spectral, pool));
}

void backward(const Input& input, double grad, const double* weight, const double* row_norms, void* dx,
              Workspace& workspace, const Pool& pool) {
  with_rows(input, [&](const auto& rows) {
    backward_rows(rows, grad, weight, row_norms, dx, spaces(workspace).backward, pool);
  });
}

void singular_values(const Input& input, double* values, double* gram, double* row_norms, Workspace& workspace,
                     const Pool& pool) {
  Spaces& space = spaces(workspace);
  const Panels<double> g = gram_in_place(input, row_norms, space, pool);
  if (gram != nullptr) g.write_symmetric(1.0, gram);
  const Tridiagonal t = reduce(g, space.spectral);
  if (t.scale > 0)
    roots_of_eigenvalues(t, values, space.spectral);
  else
    for (int64_t i = 0; i < t.n; ++i) values[i] = t.scale;
}

void embeddings(const Input& input, double* e, double* row_norms, Workspace& workspace) {
  GramWorkspace& space = spaces(workspace).gram;
  with_rows(input, [&](const auto& rows) {
    double* mean = space.mean.reserve(rows.d);
    double* row = space.row.reserve(rows.d);
    norms_and_mean(rows, row_norms, mean, row);
    pack_rows(rows, 0, rows.b, row_norms, mean, e, rows.d, row);
    if (rows.center) center_again(e, rows.b, rows.d, mean);
  });
}

void sum_of_outer_products(const double* vectors, int64_t vector_stride, int64_t entry_stride, const double* factor,
                           int64_t n, double* out, Workspace& workspace) {
  SpectralWorkspace& space = spaces(workspace).spectral;
  const int64_t row = leading_dimension<double>(n);
  double* v = space.w.reserve(n * row);
  double* scaled = space.reflectors.reserve(n * row);
  double* sum = space.panels.reserve(n * row);
  for (int64_t k = 0; k < n; ++k)
    for (int64_t i = 0; i < row; ++i) {
      const double x = i < n ? vectors[k * vector_stride + i * entry_stride] : 0;
      v[k * row + i] = x;
      scaled[k * row + i] = factor[k] * x;
    }
  product<double>(n, n, n, v, 1, row, scaled, row, sum, row, false);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j <= i; ++j) out[i * n + j] = out[j * n + i] = sum[i * row + j];
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

const Kernels kernels = {
    new_workspace, delete_workspace,      gram,           spectral, backward, objective, singular_values,
    embeddings,    sum_of_outer_products, workspace_bytes};

}  // namespace SVMAX_ISA
}  // namespace svmax
