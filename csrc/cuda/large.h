// What is too large for one thread block, by matrix products: the ops of csrc/schemas.cpp with torch's operations.
// Nothing here waits for the device or reads from it.
#pragma once
#include <tuple>

#include "embeddings.h"
#include "polar_express.h"

namespace svmax::cuda {

inline std::tuple<Tensor, Tensor, Tensor> objective_by_products(const Tensor& x, const Objective& f, bool normalize,
                                                                bool center, bool need_gradient) {
  const Matrices in("objective", x, normalize, center);
  const Embeddings rows = embeddings(x, normalize, center);
  const bool tall = in.tall();
  const Tensor e = tall ? rows.e : aten::transpose(rows.e);
  const PolarFactor polar = polar_factor(e);
  const Tensor norm = aten::sum_of_matrices(aten::mul(e, polar.p));  // the inner product of E and P
  const Tensor value = returned(value_of(f, norm), in.batch.with({}), in.result_dtype);
  Tensor weight = empty(in.batch.with({0, 0}), aoti_torch_dtype_float64(), x);
  if (need_gradient) {
    // Wide: P = (E' W)' = W' E.
    const Tensor w = tall ? aten::matmul(polar.left, polar.right)
                          : aten::matmul(aten::transpose(polar.right), aten::transpose(polar.left));
    weight = aten::reshape(times_slope(f, norm, w), in.batch.with({in.n, in.n}));
  }
  return {value, weight, returned_row_norms(rows, in)};
}

struct Spectral {
  Tensor nuclear_norm, inverse_sqrt;  // as the op `spectral` returns them
  Tensor lost;                        // [m]
};

// The Gram matrix has lost the singular values below 1e-8 of the largest, and these rounds leave those below 7e-7 too
// small: the nuclear norm is right to 5e-9 up to kappa(G) = 1e8, and off by 1e-6 to 1e-5 where embeddings are equal but
// for noise of 1e-5 to 1e-7. `lost` tells. objective_by_products, which has E, has no such limit.
inline Spectral spectral_by_products(const Tensor& gram, bool need_inverse_sqrt) {
  const Batch batch(gram, 2);
  const int64_t n = gram.size(-1);
  const GramRoot root = root_of_gram(aten::reshape(gram, aten::Sizes{batch.count, n, n}));
  const int32_t float64 = aoti_torch_dtype_float64();
  const Tensor norm = returned(root.nuclear_norm, batch.with({}), float64);
  const Tensor lost = returned(root.lost, {batch.count}, float64);
  if (!need_inverse_sqrt) return {norm, empty(batch.with({0, 0}), float64, gram), lost};
  return {norm, aten::reshape(root.inverse_sqrt, batch.with({n, n})), lost};
}

// dx [.., b, d] in x's type. grad: one number a matrix, or none, which is one.
inline Tensor backward_by_products(const std::optional<Tensor>& grad, const Tensor& x, const Tensor& weight,
                                   const Tensor& row_norms, bool normalize, bool center) {
  const Matrices in("backward", x, normalize, center);
  const Embeddings rows = embeddings(x, normalize, center, row_norms);
  const Tensor w = without_null_direction(aten::reshape(weight, aten::Sizes{in.batch.count, in.n, in.n}), in);
  Tensor dx = in.tall() ? aten::matmul(rows.e, w) : aten::matmul(w, rows.e);
  std::optional<Tensor> factor;
  if (grad) factor = aten::to_float64(aten::reshape(*grad, aten::Sizes{in.batch.count, 1, 1}));
  if (normalize) {
    // dx = (g - (g.e) e) / |x|; the projection is on the row before centring.
    const Tensor along = aten::sum_of_rows(aten::mul(dx, rows.normalized));
    dx = aten::sub(dx, aten::mul(along, rows.normalized));
    // A zero row has no direction: its gradient is zero by contract.
    const Tensor one = factor ? *factor : aten::number(1);
    factor = aten::where(aten::is_zero(rows.row_norms), aten::zeros(dx, {1, 1, 1}), aten::div(one, rows.row_norms));
  }
  return returned(factor ? aten::mul(dx, *factor) : dx, in.batch.with({in.b, in.d}), in.dtype);
}

}  // namespace svmax::cuda
