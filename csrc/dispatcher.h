// A call of any op that torch has, by name, through the dispatcher that the stable ABI offers.
#pragma once
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>

namespace svmax {

// The first kResults results of name.overload. Every argument of the schema must be given, in its own type
// (int64_t for int); torch 2.10 takes tensors, numbers, strings, lists and optionals of them, but no Scalar.
template <size_t kResults = 1, typename... Arguments>
std::array<torch::stable::Tensor, kResults> call(const char* name, const char* overload,
                                                 const Arguments&... arguments) {
  std::array<StableIValue, std::max(kResults, sizeof...(Arguments))> stack{torch::stable::detail::from(arguments)...};
#ifdef STABLE_TORCH_ERROR_CODE_CHECK  // newer headers: the error then says what the op said
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, overload, stack.data(), TORCH_ABI_VERSION));
#else
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, overload, stack.data(), TORCH_ABI_VERSION));
#endif
  std::array<torch::stable::Tensor, kResults> results;
  for (size_t i = 0; i < kResults; ++i) results[i] = torch::stable::detail::to<torch::stable::Tensor>(stack[i]);
  return results;
}

}  // namespace svmax
