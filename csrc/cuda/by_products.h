// The ops of csrc/schemas.cpp by matrix products, for what is too large for one thread block.
// Nothing here waits for the device or reads from it.
#pragma once
#include <tuple>

#include "embeddings.h"
#include "objective.cuh"
#include "polar_express.h"

namespace svmax::cuda {

// t as a new contiguous tensor of that shape and type: what an op returns.
inline Tensor returned(const Tensor& t, const aten::Sizes& sizes, int32_t dtype) {
  Tensor result = empty(sizes, dtype, t);
  torch::stable::copy_(result, aten::reshape(t, sizes));
  return result;
}

// The precision of W here, [.., 1], or [.., 0] where W is not wanted: its products are to be taken in float64.
inline Tensor never_in_float32(const Batch& batch, bool wanted, const Tensor& like) {
  return torch::stable::new_zeros(like, batch.with({wanted ? 1 : 0}), ScalarType::Bool);
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor> objective_by_products(const Tensor& x, const Objective& f,
                                                                        bool normalize, bool center,
                                                                        bool need_gradient) {
  const Matrices in("objective", x, normalize, center);
  const int64_t m = in.batch.count;
  const Device device(x);
  const Embeddings embeddings = pack_e(x, normalize, center);
  const bool tall = in.tall();
  const Tensor e = tall ? embeddings.e : aten::transpose(embeddings.e);
  const PolarFactor polar = polar_factor(e);
  const Tensor norm = aten::sum_of_matrices(aten::mul(e, polar.p));  // the inner product of E and P
  const Tensor value = empty(in.batch.with({}), aoti_torch_dtype_float32(), x), slope = scratch({m, 1, 1}, x);
  if (m > 0)
    SVMAX_LAUNCH(device, objective_kernel, Grid{(m + kObjectiveThreads - 1) / kObjectiveThreads}, kObjectiveThreads, 0,
                 f, m, global<const f64>(norm), global<f32>(value), global<f64>(slope));
  Tensor weight = empty(in.batch.with({0, 0}), aoti_torch_dtype_float64(), x);
  if (need_gradient) {
    // Wide: P = (E' W)' = W' E.
    const Tensor w = tall ? aten::matmul(polar.left, polar.right)
                          : aten::matmul(aten::transpose(polar.right), aten::transpose(polar.left));
    weight = aten::reshape(aten::mul(w, slope), in.batch.with({in.n, in.n}));
  }
  const Tensor row_norms = returned(embeddings.row_norms, in.batch.with({in.norms()}), aoti_torch_dtype_float64());
  return {value, weight, never_in_float32(in.batch, need_gradient, x), row_norms};
}

struct Spectral {
  Tensor nuclear_norm, inverse_sqrt, in_float32;  // as the op `spectral` returns them
  Tensor lost;                                    // [m]
};

// The Gram matrix has lost the singular values below 1e-8 of the largest, and these rounds leave those below 7e-7 too
// small: the nuclear norm is right to 5e-9 up to kappa(G) = 1e8, and off by 1e-6 to 1e-5 where embeddings are equal but
// for noise of 1e-5 to 1e-7. `lost` tells. objective_by_products, which has E, has no such limit.
inline Spectral spectral_by_products(const Tensor& gram, bool need_inverse_sqrt) {
  const Batch batch(gram, 2);
  const int64_t n = gram.size(-1);
  const GramRoot root = root_of_gram(aten::reshape(gram, aten::Sizes{batch.count, n, n}));
  const int32_t float64 = aoti_torch_dtype_float64();
  return {returned(root.nuclear_norm, batch.with({}), float64),
          need_inverse_sqrt ? aten::reshape(root.inverse_sqrt, batch.with({n, n}))
                            : empty(batch.with({0, 0}), float64, gram),
          never_in_float32(batch, need_inverse_sqrt, gram), returned(root.lost, {batch.count}, float64)};
}

// W [.., n, n], the mean of its rows taken off where E is centred and wide: along the null vector of ones, which EE'
// then has, W is 1 / sqrt(shift), and would multiply what rounding has left of the sum of E's rows
// (csrc/cpu/backward.h).
inline Tensor without_null_direction(const Tensor& weight, const Matrices& in) {
  if (in.tall() || !in.first.center) return weight;
  return aten::sub(weight, aten::mul(aten::sum_over(weight, {-2}), 1.0 / double(weight.size(-2))));
}

// dx [.., b, d] in x's type. grad: one number a matrix.
inline Tensor backward_by_products(const Tensor& grad, const Tensor& x, const Tensor& weight, const Tensor& row_norms,
                                   bool normalize, bool center) {
  const Matrices in("backward", x, normalize, center);
  const Embeddings embeddings = pack_e(x, normalize, center, row_norms);
  const Tensor w = without_null_direction(aten::reshape(weight, aten::Sizes{in.batch.count, in.n, in.n}), in);
  Tensor dx = in.tall() ? aten::matmul(embeddings.e, w) : aten::matmul(w, embeddings.e);
  Tensor factor = aten::to_float64(aten::reshape(grad, aten::Sizes{in.batch.count, 1, 1}));
  if (normalize) {
    // dx = (g - (g.e) e) / |x|; the projection is on the row before centring.
    const Tensor along = aten::sum_of_rows(aten::mul(dx, embeddings.normalized));
    dx = aten::sub(dx, aten::mul(along, embeddings.normalized));
    // A zero row has no direction: its gradient is zero by contract.
    factor = aten::where(aten::is_zero(embeddings.row_norms), aten::zeros(dx, {1, 1, 1}),
                         aten::div(factor, embeddings.row_norms));
  }
  return returned(aten::mul(dx, factor), in.batch.with({in.b, in.d}), in.dtype);
}

}  // namespace svmax::cuda
