// Torch's own operations as the CUDA backend calls them. All of them run on the current stream, and none waits for it.
#pragma once
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <vector>

#include "../dispatcher.h"

namespace svmax::aten {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = std::vector<int64_t>;

// A number for an operation that takes tensors. On the host: kernels of two operands take it as an argument, so that
// nothing is copied to the device and a CUDA graph can capture the call.
inline Tensor number(double value) {
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_scalar_to_tensor_float64(value, &handle));
  return Tensor(handle);
}

// ---- products and views

using torch::stable::matmul;
using torch::stable::reshape;

inline Tensor transpose(const Tensor& a) { return torch::stable::transpose(a, -2, -1); }
inline Tensor diagonal(const Tensor& a) {
  return call("aten::diagonal", "", a, int64_t(0), int64_t(-2), int64_t(-1))[0];
}

// ---- element by element

inline Tensor mul(const Tensor& a, const Tensor& b) { return call("aten::mul", "Tensor", a, b)[0]; }
inline Tensor mul(const Tensor& a, double b) { return mul(a, number(b)); }
inline Tensor div(const Tensor& a, const Tensor& b) { return call("aten::div", "Tensor", a, b)[0]; }
inline Tensor add(const Tensor& a, const Tensor& b, double factor = 1) {  // a + factor b
  return torch::stable::subtract(a, b, -factor);
}
inline Tensor sub(const Tensor& a, const Tensor& b) { return torch::stable::subtract(a, b); }
inline Tensor maximum(const Tensor& a, double b) { return call("aten::maximum", "", a, number(b))[0]; }  // NaN stays
inline Tensor sqrt(const Tensor& a) { return call("aten::sqrt", "", a)[0]; }
inline Tensor is_zero(const Tensor& a) { return call("aten::logical_not", "", a)[0]; }  // false for a NaN
inline Tensor where(const Tensor& condition, const Tensor& a, const Tensor& otherwise) {
  return call("aten::where", "self", condition, a, otherwise)[0];
}
inline Tensor to_float64(const Tensor& a) { return torch::stable::to(a, ScalarType::Double); }

// ---- sums and such, over the last dimension or over whole matrices; the dimensions stay

inline Tensor sum_over(const Tensor& a, const Sizes& dimensions) {
  return call("aten::sum", "dim_IntList", a, std::optional<Sizes>(dimensions), true, std::optional<ScalarType>())[0];
}
inline Tensor sum_of_rows(const Tensor& a) { return sum_over(a, {-1}); }
inline Tensor sum_of_matrices(const Tensor& a) { return sum_over(a, {-2, -1}); }

// ---- new tensors on the device of `like`

inline Tensor zeros(const Tensor& like, const Sizes& sizes) { return torch::stable::new_zeros(like, sizes); }

}  // namespace svmax::aten
