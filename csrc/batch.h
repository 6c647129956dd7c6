// A batch of matrices in a torch tensor, as the kernels of every device want it: pointers, strides, new tensors.
#pragma once
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <vector>

#include "contracts.h"
#include "matrix_view.h"
#include "objective.h"

namespace svmax {

// Contiguous, on the device of `like`.
inline Tensor empty(const std::vector<int64_t>& sizes, int32_t dtype, const Tensor& like) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(sizes[i], 1);
  int32_t device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(), strides.data(), dtype,
                                                  device_type, device_index, &handle));
  return Tensor(handle);
}

// The batch dimensions of a tensor whose last `inner` dimensions are the item; walks over any strides.
struct Batch {
  std::vector<int64_t> sizes, strides;
  int64_t count = 1;

  Batch(const Tensor& t, int64_t inner) {
    const int64_t outer = t.dim() - inner;
    sizes.assign(t.sizes().begin(), t.sizes().begin() + outer);
    strides.assign(t.strides().begin(), t.strides().begin() + outer);
    for (const int64_t size : sizes) count *= size;
  }
  int64_t offset(int64_t index) const {
    int64_t at = 0;
    for (size_t i = sizes.size(); i-- > 0; index /= sizes[i]) at += index % sizes[i] * strides[i];
    return at;
  }
  std::vector<int64_t> with(std::initializer_list<int64_t> inner) const {
    std::vector<int64_t> all = sizes;
    all.insert(all.end(), inner);
    return all;
  }
};

inline Scalar scalar_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Half:
      return Scalar::Half;
    case ScalarType::BFloat16:
      return Scalar::BFloat16;
    case ScalarType::Float:
      return Scalar::Float;
    default:
      return Scalar::Double;
  }
}

// x [..., b, d]: what every op starts from.
struct Matrices {
  Batch batch;
  MatrixView first;
  int64_t b, d, n, element;
  int32_t dtype;

  Matrices(const char* op, const Tensor& x, bool normalize, bool center) : batch((check_matrices(op, "x", x), x), 2) {
    b = x.size(-2), d = x.size(-1), n = std::min(b, d);
    first = {x.data_ptr(), scalar_of(x), b, d, x.stride(-2), x.stride(-1), normalize, center};
    element = int64_t(x.element_size());
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
  }
  bool tall() const { return is_tall(b, d, first.center); }
  bool is_double() const { return first.scalar == Scalar::Double; }
  MatrixView at(int64_t i) const {
    MatrixView matrix = first;
    matrix.x = static_cast<const char*>(first.x) + batch.offset(i) * element;
    return matrix;
  }
  int64_t norms() const { return first.normalize ? b : 0; }
};

// The arguments of the op `backward`.
inline void check_backward(const Matrices& in, const Tensor& grad, const Tensor& x, const Tensor& weight,
                           const Tensor& in_float32, const Tensor& row_norms) {
  check_grad("backward", grad, in.batch.with({}), x);
  check_kept("backward", "weight", weight, in.batch.with({in.n, in.n}), ScalarType::Double, x);
  check_kept("backward", "in_float32", in_float32, in.batch.with({1}), ScalarType::Bool, x);
  check_kept("backward", "row_norms", row_norms, in.batch.with({in.norms()}), ScalarType::Double, x);
}

// The objectives by the names that the schemas list.
inline Objective objective_of(const std::string& name, const Matrices& in, const Tensor& x) {
  const double b = double(in.b), d = double(in.d);
  if (name == "nuclear_norm") return Objective::linear(1);
  if (name == "mean_singular_value") return Objective::linear(1 / d);
  if (name == "svmax_loss_unbounded") return Objective::linear(-1 / d);
  STD_TORCH_CHECK(name == "svmax_loss", "svmax::objective: objective must be nuclear_norm, mean_singular_value, ",
                  "svmax_loss or svmax_loss_unbounded, got ", name);
  const Objective loss = Objective::bounded(b, d, in.first.center);
  STD_TORCH_CHECK(loss.is_defined(), "svmax::objective: svmax_loss needs ",
                  in.first.center ? "b >= 2 when centred" : "min(b, d) >= 2", ", got x ", shape_of(x), "; U equals L");
  return loss;
}

}  // namespace svmax
