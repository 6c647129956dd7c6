// What every kernel relies on, checked for callers of torch.ops; the Python functions refuse earlier and say more.
#pragma once
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <initializer_list>
#include <utility>

namespace svmax {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check_matrices(const char* op, const char* name, const Tensor& x) {
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Half || type == ScalarType::BFloat16 || type == ScalarType::Float ||
                      type == ScalarType::Double,
                  "svmax::", op, ": ", name, " must be float16, bfloat16, float32 or float64");
  STD_TORCH_CHECK(x.dim() >= 2, "svmax::", op, ": ", name, " must be [..., b, d], got ", x.dim(), " dimensions");
  STD_TORCH_CHECK(x.size(-1) > 0 && x.size(-2) > 0, "svmax::", op, ": ", name, " must have b >= 1 and d >= 1, got [",
                  x.size(-2), ", ", x.size(-1), "]");
}

inline void check_gram(const Tensor& gram) {
  check_matrices("spectral", "gram", gram);
  STD_TORCH_CHECK(gram.scalar_type() == ScalarType::Double && gram.size(-1) == gram.size(-2),
                  "svmax::spectral: gram must be [..., n, n] in float64, got [..., ", gram.size(-2), ", ",
                  gram.size(-1), "]");
}

inline void check_grad(const char* op, const Tensor& grad, int64_t matrices, int64_t each) {
  STD_TORCH_CHECK(grad.numel() == matrices * each &&
                      (grad.scalar_type() == ScalarType::Float || grad.scalar_type() == ScalarType::Double),
                  "svmax::", op, ": grad must be float32 or float64 with ", each, " numbers a matrix, got ",
                  grad.numel(), " for ", matrices, " matrices, of ", grad.element_size(), " bytes each");
}

// `t` holds `each` float64 numbers, contiguous, for each of the batch's matrices.
inline void check_kept(const char* op, const char* name, const Tensor& t, int64_t matrices, int64_t each) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Double && t.numel() == matrices * each, "svmax::", op, ": ", name,
                  " must be float64 with ", each, " numbers a matrix, as the forward op returned it; got ", t.numel(),
                  " for ", matrices, " matrices, of ", t.element_size(), " bytes each");
}

// Kernels read pointers: a tensor on another device than x's would be read as garbage, or end the process.
inline void check_same_device(const char* op, const Tensor& x,
                              std::initializer_list<std::pair<const char*, const Tensor&>> others) {
  for (const auto& [name, t] : others)
    STD_TORCH_CHECK(t.device() == x.device(), "svmax::", op, ": ", name, " must be on x's device, number ",
                    x.get_device_index(), "; it is on number ", t.get_device_index(), " of its kind");
}

}  // namespace svmax
