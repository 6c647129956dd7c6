// float64 input: there is no wider type to accumulate its Gram matrix in, so torch's own SVD of E serves it.
#pragma once
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "tensors.h"

namespace svmax {

struct Decomposition {
  Tensor left, values, right;  // [m, b, n], [m, n], [m, n, d]
  std::vector<char> finite;    // torch refuses NaN and inf: such a matrix is decomposed as zeros
};

inline Tensor embeddings_of(const Matrices& x, const Tensor& row_norms, std::vector<char>& finite) {
  const Tensor e = empty({x.batch.count, x.b, x.d}, aoti_torch_dtype_float64(), row_norms);
  finite.assign(size_t(x.batch.count), 1);
  for_each_matrix(x.batch.count, x.b * x.d, [&](int64_t i, Workspace& workspace, const Pool&) {
    double* at = doubles(e) + i * x.b * x.d;
    kernels().embeddings(x.at(i), at, doubles(row_norms) + i * x.norms(), workspace);
    finite[size_t(i)] = zero_unless_finite(at, x.b * x.d);
  });
  return e;
}

inline Decomposition svd(const Matrices& x, const Tensor& row_norms) {
  Decomposition result;
  const Tensor e = embeddings_of(x, row_norms, result.finite);
  std::array<StableIValue, 3> stack{torch::stable::detail::from(e), torch::stable::detail::from(false),
                                    torch::stable::detail::from(std::optional<std::string>())};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::linalg_svd", "", stack.data(), TORCH_ABI_VERSION));
  result.left = torch::stable::detail::to<Tensor>(stack[0]);
  result.values = torch::stable::detail::to<Tensor>(stack[1]);
  result.right = torch::stable::detail::to<Tensor>(stack[2]);
  return result;
}

// factor(k, s) / s, or zero where s is rounding noise: the subgradient of smallest norm at rank deficiency.
template <typename F>
std::vector<double> over_singular_values(const double* s, int64_t n, int64_t larger_side, const F& factor) {
  std::vector<double> result(size_t(n), 0.0);
  const double cutoff = double(larger_side) * std::numeric_limits<double>::epsilon() * s[0];
  for (int64_t k = 0; k < n; ++k)
    if (s[k] > cutoff) result[size_t(k)] = factor(k) / s[k];
  return result;
}

// weight [n, n] = V diag(factor) V' (tall) or U diag(factor) U' (wide) for matrix i.
inline void weight_from_svd(const Matrices& x, const Decomposition& svd, int64_t i, const std::vector<double>& factor,
                            double* weight, Workspace& workspace) {
  const bool tall = x.tall();
  const Tensor& side = tall ? svd.right : svd.left;
  const double* vectors = doubles(side) + i * side.stride(0);
  kernels().sum_of_outer_products(vectors, side.stride(tall ? 1 : 2), side.stride(tall ? 2 : 1), factor.data(), x.n,
                                  weight, workspace);
  if (!svd.finite[size_t(i)]) std::fill_n(weight, x.n * x.n, NAN);
}

}  // namespace svmax
