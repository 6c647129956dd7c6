// What torch's decompositions serve: float64 input, which has no wider type to accumulate its Gram matrix in, singular
// values of matrices that no thread block holds, and the backward of singular values. On a GPU they wait for the host
// and cannot be captured in a CUDA graph.
#pragma once
#include <limits>
#include <optional>
#include <tuple>

#include "embeddings.h"
#include "large.h"

namespace svmax::cuda {

// torch.linalg refuses NaN and inf: such a matrix is decomposed as zeros, and `poison` added to the results.
struct Finite {
  Tensor matrices, poison;  // [m, .., ..]; [m, 1, 1]: 0, or NaN where there was a NaN or inf

  explicit Finite(const Tensor& t) {
    const Tensor largest = aten::largest_of_matrices(t);
    poison = aten::sub(largest, largest);
    matrices = aten::where(aten::is_zero(poison), t, aten::zeros(t, {1, 1, 1}));
  }
};

// E as an SVD wants it: at collapse onto one direction the rounding of the mean is large beside a centred E, and would
// be found as a singular value of its own. So the mean of what is left is taken off too.
inline Tensor for_svd(const Embeddings& rows, const Matrices& in) {
  return in.first.center ? less_mean_row(rows.e) : rows.e;
}

// factor / s, or zero where s is rounding noise: the subgradient of smallest norm at rank deficiency. s [m, 1, n].
inline Tensor over_singular_values(const Tensor& factor, const Tensor& s, const Matrices& in) {
  const double noise = double(std::max(in.b, in.d)) * std::numeric_limits<double>::epsilon();
  const Tensor kept = aten::greater(s, aten::mul(aten::select_last(s, 0), noise));
  return aten::where(kept, aten::div(factor, s), aten::zeros(s, {1, 1, 1}));
}

// V diag(factor) V' (tall) or U diag(factor) U' (wide) [m, n, n]; factor [m, 1, n].
inline Tensor weight_from_vectors(const Tensor& vectors, const Tensor& factor) {
  return aten::matmul(aten::mul(vectors, factor), aten::transpose(vectors));
}

struct Decomposition {
  Tensor vectors, values;  // V (tall) or U (wide) [m, n, n]; s [m, 1, n]

  Decomposition(const Tensor& e, const Matrices& in) {
    const auto [left, s, right] = aten::svd(e);
    vectors = in.tall() ? aten::transpose(right) : left;
    values = aten::reshape(s, aten::Sizes{in.batch.count, 1, in.n});
  }
};

inline std::tuple<Tensor, Tensor, Tensor> objective_by_svd(const Tensor& x, const Objective& f, bool normalize,
                                                           bool center, bool need_gradient) {
  const Matrices in("objective", x, normalize, center);
  const Embeddings rows = embeddings(x, normalize, center);
  const Finite e(for_svd(rows, in));
  std::optional<Decomposition> svd;
  if (need_gradient) svd.emplace(e.matrices, in);
  const Tensor s = svd ? svd->values : aten::reshape(aten::svdvals(e.matrices), aten::Sizes{in.batch.count, 1, in.n});
  const Tensor norm = aten::add(aten::sum_of_rows(s), e.poison);
  const Tensor value = returned(value_of(f, norm), in.batch.with({}), in.result_dtype);
  Tensor weight = empty(in.batch.with({0, 0}), aoti_torch_dtype_float64(), x);
  if (need_gradient) {
    const Tensor slope = times_slope(f, norm, aten::number(1));
    const Tensor factor = aten::add(over_singular_values(slope, s, in), e.poison);
    weight = aten::reshape(weight_from_vectors(svd->vectors, factor), in.batch.with({in.n, in.n}));
  }
  return {value, weight, returned_row_norms(rows, in)};
}

inline std::tuple<Tensor, Tensor, Tensor> singular_values_by_svd(const Tensor& x, bool normalize, bool center,
                                                                 bool need_gradient) {
  const Matrices in("singular_values", x, normalize, center);
  const Embeddings rows = embeddings(x, normalize, center);
  const Finite e(for_svd(rows, in));
  const Tensor s = aten::reshape(aten::svdvals(e.matrices), aten::Sizes{in.batch.count, 1, in.n});
  const Tensor values = returned(aten::add(s, e.poison), in.batch.with({in.n}), in.result_dtype);
  const int64_t kept = need_gradient ? in.n : 0;
  Tensor gram = aten::zeros(rows.e, in.batch.with({kept, kept}));
  if (need_gradient && !in.is_double()) {  // for float64 the backward decomposes E again instead
    const Tensor t = aten::transpose(rows.e);
    gram = aten::reshape(in.tall() ? aten::matmul(t, rows.e) : aten::matmul(rows.e, t), in.batch.with({kept, kept}));
  }
  return {values, gram, returned_row_norms(rows, in)};
}

// dX = U diag(g) V' = E W_g with W_g = V diag(g / s) V', from the eigenvectors of the Gram matrix (wide: W_g E).
inline Tensor singular_values_backward(const Tensor& grad, const Tensor& x, const Tensor& gram, const Tensor& row_norms,
                                       bool normalize, bool center) {
  const Matrices in("singular_values_backward", x, normalize, center);
  const Tensor g = aten::to_float64(aten::reshape(grad, aten::Sizes{in.batch.count, 1, in.n}));
  if (in.is_double()) {
    const Finite e(for_svd(embeddings(x, normalize, center, row_norms), in));
    const Decomposition svd(e.matrices, in);
    const Tensor factor = aten::add(over_singular_values(g, svd.values, in), e.poison);
    return backward_by_products(std::nullopt, x, weight_from_vectors(svd.vectors, factor), row_norms, normalize,
                                center);
  }
  const Finite finite(aten::reshape(gram, aten::Sizes{in.batch.count, in.n, in.n}));
  const auto [ascending, vectors] = aten::eigh(finite.matrices);
  const Tensor values = aten::reshape(ascending, aten::Sizes{in.batch.count, 1, in.n});
  // The shift of the stage `spectral`, so that |P| <= 1 + 1e-8 here too where s is rounding noise.
  const Tensor shift = aten::mul(aten::select_last(values, in.n - 1), 4 * std::numeric_limits<double>::epsilon());
  const Tensor roots = aten::sqrt(aten::add(aten::maximum(values, 0), shift));
  const Tensor over =
      aten::where(aten::is_zero(roots), aten::zeros(roots, {1, 1, 1}), aten::div(aten::flip_last(g), roots));
  return backward_by_products(std::nullopt, x, weight_from_vectors(vectors, aten::add(over, finite.poison)), row_norms,
                              normalize, center);
}

}  // namespace svmax::cuda
