// The checks that every kernel relies on, for callers of torch.ops; the Python functions refuse earlier and say more.
// Every sentence is in shapes, dtypes and devices, as torch writes them.
#pragma once
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace svmax {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// ---- how torch writes them

inline std::string dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Bool:
      return "bool";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Char:
      return "int8";
    case ScalarType::Short:
      return "int16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::ComplexFloat:
      return "complex64";
    case ScalarType::ComplexDouble:
      return "complex128";
    default:
      return "another dtype";
  }
}

template <typename Sizes>
std::string shape(const Sizes& sizes) {
  std::string result = "[";
  for (const int64_t size : sizes) result += (result.size() > 1 ? ", " : "") + std::to_string(size);
  return result + "]";
}
inline std::string shape_of(const Tensor& t) { return shape(t.sizes()); }
inline std::string shape_and_dtype_of(const Tensor& t) { return shape_of(t) + " in " + dtype_of(t); }

inline std::string device_of(const Tensor& t) {
  using torch::headeronly::DeviceType;
  const torch::stable::Device device = t.device();
  if (device.type() == DeviceType::CPU) return "cpu";
  std::string name = device.type() == DeviceType::CUDA   ? "cuda"
                     : device.type() == DeviceType::Meta ? "meta"
                                                         : "another kind of device";
  if (device.type() == DeviceType::CUDA) name.append(":").append(std::to_string(int(device.index())));
  return name;
}

// ---- checks

inline bool has_shape(const Tensor& t, const std::vector<int64_t>& wanted) {
  const auto sizes = t.sizes();
  return std::equal(sizes.begin(), sizes.end(), wanted.begin(), wanted.end());
}

inline void check_matrices(const char* op, const char* name, const Tensor& x) {
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Half || type == ScalarType::BFloat16 || type == ScalarType::Float ||
                      type == ScalarType::Double,
                  "svmax::", op, ": ", name, " must be float16, bfloat16, float32 or float64, got ", dtype_of(x));
  STD_TORCH_CHECK(x.dim() >= 2, "svmax::", op, ": ", name, " must be [..., b, d], at least 2 dimensions, got ",
                  shape_of(x));
  STD_TORCH_CHECK(x.size(-1) > 0 && x.size(-2) > 0, "svmax::", op, ": ", name,
                  " must be [..., b, d] with b >= 1 and d >= 1, got ", shape_of(x));
}

inline void check_gram(const Tensor& gram) {
  STD_TORCH_CHECK(gram.scalar_type() == ScalarType::Double && gram.dim() >= 2 && gram.size(-1) == gram.size(-2) &&
                      gram.size(-1) > 0,
                  "svmax::spectral: gram must be [..., n, n] with n >= 1 in float64, got ", shape_and_dtype_of(gram));
}

// Kernels read pointers: a tensor on another device than x's would be read as garbage, or end the process.
inline void check_device(const char* op, const char* name, const Tensor& t, const Tensor& x) {
  STD_TORCH_CHECK(t.device() == x.device(), "svmax::", op, ": ", name, " must be on x's device ", device_of(x),
                  ", got ", device_of(t));
}

inline void check_grad(const char* op, const Tensor& grad, const std::vector<int64_t>& wanted, const Tensor& x) {
  STD_TORCH_CHECK(
      has_shape(grad, wanted) && (grad.scalar_type() == ScalarType::Float || grad.scalar_type() == ScalarType::Double),
      "svmax::", op, ": grad must be ", shape(wanted), " in float32 or float64, got ", shape_and_dtype_of(grad));
  check_device(op, "grad", grad, x);
}

// `t` is what the forward op has returned beside its value.
inline void check_kept(const char* op, const char* name, const Tensor& t, const std::vector<int64_t>& wanted,
                       ScalarType dtype, const Tensor& x) {
  STD_TORCH_CHECK(has_shape(t, wanted) && t.scalar_type() == dtype, "svmax::", op, ": ", name, " must be ",
                  shape(wanted), " in ", dtype == ScalarType::Bool ? "bool" : "float64",
                  ", as the forward op returned it; got ", shape_and_dtype_of(t));
  check_device(op, name, t, x);
}

}  // namespace svmax
