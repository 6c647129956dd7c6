// What every kernel relies on, checked for callers of torch.ops; the Python functions refuse earlier and say more.
#pragma once
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>

namespace svmax {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

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

inline std::string shape_of(const Tensor& t) {
  std::string shape = "[";
  for (const int64_t size : t.sizes()) shape += (shape.size() > 1 ? ", " : "") + std::to_string(size);
  return shape + "]";
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
  check_matrices("spectral", "gram", gram);
  STD_TORCH_CHECK(gram.scalar_type() == ScalarType::Double && gram.size(-1) == gram.size(-2),
                  "svmax::spectral: gram must be [..., n, n] in float64, got ", shape_of(gram), " in ", dtype_of(gram));
}

inline void check_grad(const char* op, const Tensor& grad, int64_t matrices, int64_t each) {
  STD_TORCH_CHECK(grad.numel() == matrices * each &&
                      (grad.scalar_type() == ScalarType::Float || grad.scalar_type() == ScalarType::Double),
                  "svmax::", op, ": grad must be float32 or float64 with ", each, " numbers for each of ", matrices,
                  " matrices, got ", shape_of(grad), " in ", dtype_of(grad));
}

// `t` holds `each` float64 numbers, contiguous, for each of the batch's matrices.
inline void check_kept(const char* op, const char* name, const Tensor& t, int64_t matrices, int64_t each) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Double && t.numel() == matrices * each, "svmax::", op, ": ", name,
                  " must be float64 with ", each, " numbers for each of ", matrices,
                  " matrices, as the forward op returned it; got ", shape_of(t), " in ", dtype_of(t));
}

// Kernels read pointers: a tensor on another device than x's would be read as garbage, or end the process.
inline void check_same_device(const char* op, const Tensor& x,
                              std::initializer_list<std::pair<const char*, const Tensor&>> others) {
  for (const auto& [name, t] : others)
    STD_TORCH_CHECK(t.device() == x.device(), "svmax::", op, ": ", name, " must be on x's device, number ",
                    x.get_device_index(), "; it is on number ", t.get_device_index(), " of its kind");
}

}  // namespace svmax
