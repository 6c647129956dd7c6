// A program for ThreadSanitizer, which ends with code 66 when it has seen a race:
//   svmax_host_threads example NAME    one of broken.cpp or correct.cpp
//   svmax_host_threads list            those that make sense here, and whether they have a race
//   svmax_host_threads kernels         every kernel, on small matrices of each template and type
#include <cstdio>
#include <random>
#include <string_view>

#include "cuda/cuda.cu"
#include "examples.h"

namespace svmax::cuda {
namespace {

Tensor random_rows(int64_t matrices, int64_t b, int64_t d, int32_t dtype) {
  const int64_t sizes[] = {matrices, b, d}, strides[] = {b * d, d, 1};
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(3, sizes, strides, dtype, aoti_torch_device_type_cpu(), 0, &handle));
  const Tensor x(handle);
  std::mt19937 generator(0);
  std::normal_distribution<double> normal;
  const int64_t count = matrices * b * d;
  for (int64_t i = 0; i < count; ++i) {
    const double value = normal(generator);
    switch (x.scalar_type()) {
      case ScalarType::Half:
        static_cast<Half*>(x.data_ptr())[i] = from_f64<Half>(value);
        break;
      case ScalarType::BFloat16:
        static_cast<BFloat16*>(x.data_ptr())[i] = from_f64<BFloat16>(value);
        break;
      case ScalarType::Float:
        static_cast<float*>(x.data_ptr())[i] = float(value);
        break;
      default:
        static_cast<double*>(x.data_ptr())[i] = value;
    }
  }
  return x;
}

void forward_and_backward(int64_t matrices, int64_t b, int64_t d, int32_t dtype, bool center) {
  std::printf("%d x [%d, %d] %s\n", int(matrices), int(b), int(d), center ? "centred" : "");
  std::fflush(stdout);
  const Tensor x = random_rows(matrices, b, d, dtype);
  const auto [value, weight, in_float32, row_norms] = objective_cuda(x, "svmax_loss", true, center, true);
  backward_cuda(value, x, weight, in_float32, row_norms, "svmax_loss", true, center);
  singular_values_cuda(x, true, center, true);
}

void all_kernels() {
  // Each template of the spectral stage once, in registers, shared and global memory.
  for (const int64_t n : {5, 24, 40, 70, 129, 170}) {
    forward_and_backward(1, n + 3, n, aoti_torch_dtype_float32(), false);
  }
  forward_and_backward(6, 9, 12, aoti_torch_dtype_bfloat16(), false);
  forward_and_backward(2, 70, 20, aoti_torch_dtype_float16(), true);
}

}  // namespace
}  // namespace svmax::cuda

int main(int count, char** arguments) {
  const std::string_view what = count > 1 ? arguments[1] : "";
  if (what == "kernels") {
    svmax::cuda::all_kernels();
    return 0;
  }
  for (const auto& examples : {svmax_host::kBroken, svmax_host::kCorrect}) {
    const bool broken = examples.data() == svmax_host::kBroken.data();
    for (const auto& example : examples) {
      const std::string_view name = example.name;
      // Other mistakes are for the fibres to find.
      if (what == "list" && (!broken || name.starts_with("race_")))
        std::printf("%s %s\n", broken ? "broken" : "correct", example.name);
      if (what != "example" || count != 3 || name != arguments[2]) continue;
      example.run();
      return 0;
    }
  }
  if (what == "list") return 0;
  std::fprintf(stderr, "%s: expected `kernels`, `list`, or `example` and the name of one\n", arguments[0]);
  return 2;
}
