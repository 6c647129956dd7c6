// The way by torch.linalg, for float64 x, which has no wider type to accumulate its Gram matrix in, and for singular
// values of matrices that no thread block holds. It is written once, in Python, for every device: the ops of the
// namespace `svmax_reference`, which svmax_ops registers with the schemas of schemas.cpp.
#pragma once
#include <string>
#include <tuple>

#include "batch.h"
#include "dispatcher.h"

namespace svmax {

// Whatever differentiates has wrapped the op that calls these, so x comes without its history.
inline Tensor detached(const Tensor& x) { return call("aten::detach", "", x)[0]; }

// -> value, weight, in_float32, row_norms
inline std::tuple<Tensor, Tensor, Tensor, Tensor> objective_by_linalg(const Tensor& x, const std::string& objective,
                                                                      bool normalize, bool center, bool need_gradient) {
  const auto [value, weight, in_float32, row_norms] =
      call<4>("svmax_reference::objective", "", detached(x), objective, normalize, center, need_gradient);
  return {value, weight, in_float32, row_norms};
}

// -> values, gram, row_norms
inline std::tuple<Tensor, Tensor, Tensor> singular_values_by_linalg(const Tensor& x, bool normalize, bool center,
                                                                    bool need_gradient) {
  const auto [values, gram, row_norms] =
      call<3>("svmax_reference::singular_values", "", detached(x), normalize, center, need_gradient);
  return {values, gram, row_norms};
}

}  // namespace svmax
