// E and the objectives by torch's own operations, for what the kernels do not serve. m: matrices of the batch.
#pragma once
#include <cmath>
#include <limits>
#include <optional>

#include "../tensors.h"
#include "torch_calls.h"

namespace svmax::cuda {

struct Embeddings {
  Tensor normalized;  // [m, b, d] float64: the rows, divided by their norms if that was asked for
  Tensor e;           // the same, minus the mean row if that was asked for
  Tensor row_norms;   // [m, b, 1], or [m, 0, 1] when not normalised
};

// |x_i| [m, b, 1], scaled by the row's largest entry so that no square leaves the range.
inline Tensor norms_of_rows(const Tensor& rows) {
  const Tensor largest = aten::maximum(aten::largest_of_rows(rows), std::numeric_limits<double>::min());
  const Tensor scaled = aten::div(rows, largest);
  return aten::mul(largest, aten::sqrt(aten::sum_of_rows(aten::mul(scaled, scaled))));
}

// row_norms: what the forward kept, or nothing.
inline Embeddings embeddings(const Tensor& x, bool normalize, bool center,
                             const std::optional<Tensor>& row_norms = std::nullopt) {
  const Matrices in("embeddings", x, normalize, center);
  Tensor rows = aten::to_float64(aten::reshape(x, aten::Sizes{in.batch.count, in.b, in.d}));
  Tensor norms = aten::zeros(rows, {in.batch.count, in.norms(), 1});
  if (normalize) {
    norms = row_norms ? aten::reshape(*row_norms, aten::Sizes{in.batch.count, in.b, 1}) : norms_of_rows(rows);
    rows = aten::div(rows, aten::where(aten::is_zero(norms), aten::ones(rows, {1, 1, 1}), norms));  // zero stays zero
  }
  // Mean first, then products: G - b mean mean' cancels at collapse.
  return {rows, center ? aten::sub(rows, aten::mean_row(rows)) : rows, norms};
}

// t as a new contiguous tensor of that shape and type: what an op returns.
inline Tensor returned(const Tensor& t, const aten::Sizes& sizes, int32_t dtype) {
  Tensor result = empty(sizes, dtype, t);
  torch::stable::copy_(result, aten::reshape(t, sizes));
  return result;
}

inline Tensor returned_row_norms(const Embeddings& rows, const Matrices& in) {
  return returned(rows.row_norms, in.batch.with({in.norms()}), aoti_torch_dtype_float64());
}

// Objective::value and Objective::slope for tensors of nuclear norms.
inline Tensor value_of(const Objective& f, const Tensor& norm) {
  if (f.kind == Objective::Kind::Linear) return aten::mul(norm, f.scale);
  return aten::exp(aten::mul(aten::add(aten::number(f.upper), norm, -1 / f.d), 1 / f.range));
}
inline Tensor times_slope(const Objective& f, const Tensor& norm, const Tensor& factor) {
  if (f.kind == Objective::Kind::Linear) return aten::mul(factor, f.scale);
  return aten::mul(factor, aten::mul(value_of(f, norm), -1 / (f.range * f.d)));
}

}  // namespace svmax::cuda
