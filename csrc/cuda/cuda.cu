// Registers the CUDA kernels with torch's dispatcher; in the host build (tests/host/) the same code under another name.
#include "../by_linalg.h"
#include "../namespace.h"
#include "by_products.h"
#include "launch_plans.h"

#ifdef __CUDACC__
#define SVMAX_KEY CUDA
#else
#define SVMAX_KEY CPU  // the emulator's tensors
#endif

namespace svmax::cuda {
namespace {

std::tuple<Tensor, Tensor> gram_cuda(const Tensor x_, bool normalize, bool center) {
  check_matrices("gram", "x", x_);
  const Tensor x = walkable(x_, 2);
  const Matrices in("gram", x, normalize, center);
  const Device device(x);
  const Tensor gram = scratch(in.batch.with({in.n, in.n}), x);
  const Tensor row_norms = scratch(in.batch.with({in.norms()}), x);
  const GramPlan plan(in.b, in.d);
  for_each_group(in.batch.count, plan.bytes(), [&](int64_t first, int64_t m) {
    const Tensor partial = launch_gram(device, in, x, row_norms, plan, first, m);
    launch_sum(device, partial, plan, m, global<f64>(gram) + first * in.n * in.n);
  });
  return {gram, row_norms};
}

Tensor new_bools(const std::vector<int64_t>& sizes, const Tensor& like) {
  return empty(sizes, aoti_torch_dtype_bool(), like);
}

std::tuple<Tensor, Tensor, Tensor> spectral_cuda(const Tensor gram_, bool need_inverse_sqrt) {
  check_gram(gram_);
  const Tensor gram = torch::stable::contiguous(gram_);
  const Batch batch(gram, 2);
  const int64_t n = gram.size(-1), kept = need_inverse_sqrt ? n : 0;
  const Device device(gram);
  const auto grams = [&](int64_t first) { return Parts{global<const f64>(gram) + first * n * n, 1, int(n)}; };
  if (n > kMostInBlock) {
    const Spectral result = spectral_by_products(gram, need_inverse_sqrt);
    // At collapse the nuclear norm is taken from eigenvalues; each matrix's block sees for itself whether that is so.
    if (fits_singular_values(device, n)) {
      for_each_group(batch.count, n * n * int64_t(sizeof(double)), [&](int64_t first, int64_t m) {
        launch_singular_values(device, gram,
                               SpectralOptions::for_lost_norm(grams(first), m, global<const f64>(result.lost) + first,
                                                              global<f64>(result.nuclear_norm) + first));
      });
    }
    return {result.nuclear_norm, result.inverse_sqrt, result.in_float32};
  }
  const Tensor norm = scratch(batch.with({}), gram);
  const Tensor inverse_sqrt = scratch(batch.with({kept, kept}), gram);
  const Tensor in_float32 = new_bools(batch.with({need_inverse_sqrt ? 1 : 0}), gram);
  for_each_group(batch.count, factor_bytes(n), [&](int64_t first, int64_t m) {
    const auto options = SpectralOptions::for_norm(grams(first), m, global<f64>(norm) + first);
    if (need_inverse_sqrt)
      launch_spectral_with_weight(device, gram, options, global<f64>(inverse_sqrt) + first * n * n,
                                  global<bool>(in_float32) + first);
    else
      launch_spectral(device, gram, options);
  });
  return {norm, inverse_sqrt, in_float32};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> objective_cuda(const Tensor x_, std::string name, bool normalize,
                                                          bool center, bool need_gradient) {
  check_matrices("objective", "x", x_);
  const Tensor x = walkable(x_, 2);
  const Matrices in("objective", x, normalize, center);
  const Objective f = objective_of(name, in, x);
  if (in.is_double()) return objective_by_linalg(x, name, normalize, center, need_gradient);
  if (in.n > kMostInBlock) return objective_by_products(x, f, normalize, center, need_gradient);
  const Device device(x);
  const int64_t n = in.n, kept = need_gradient ? n : 0;
  const Tensor value = empty(in.batch.with({}), aoti_torch_dtype_float32(), x);
  const Tensor weight = scratch(in.batch.with({kept, kept}), x);
  const Tensor in_float32 = new_bools(in.batch.with({need_gradient ? 1 : 0}), x);
  const Tensor row_norms = scratch(in.batch.with({in.norms()}), x);
  const GramPlan plan(in.b, in.d);
  for_each_group(in.batch.count, plan.bytes() + factor_bytes(n), [&](int64_t first, int64_t m) {
    const Tensor partial = launch_gram(device, in, x, row_norms, plan, first, m);
    const auto options = SpectralOptions::for_objective(parts_of(partial, plan), m, f, global<f32>(value) + first);
    if (need_gradient)
      launch_spectral_with_weight(device, x, options, global<f64>(weight) + first * n * n,
                                  global<bool>(in_float32) + first);
    else
      launch_spectral(device, x, options);
  });
  return {value, weight, in_float32, row_norms};
}

Tensor backward_cuda(const Tensor grad, const Tensor x_, const Tensor weight_, const Tensor in_float32_,
                     const Tensor row_norms_, std::string, bool normalize, bool center) {
  check_matrices("backward", "x", x_);
  const Tensor x = walkable(x_, 2);
  const Matrices in("backward", x, normalize, center);
  check_backward(in, grad, x, weight_, in_float32_, row_norms_);
  const Device device(x);
  const Tensor weight = torch::stable::contiguous(weight_), row_norms = torch::stable::contiguous(row_norms_);
  if (!fits_backward(device, in)) return backward_by_products(grad, x, weight, row_norms, normalize, center);
  const Tensor dx = empty(in.batch.with({in.b, in.d}), in.dtype, x);
  launch_backward(device, in, walkable(grad, 0), x, without_null_direction(weight, in),
                  torch::stable::contiguous(in_float32_), row_norms, dx);
  return dx;
}

std::tuple<Tensor, Tensor, Tensor> singular_values_cuda(const Tensor x_, bool normalize, bool center,
                                                        bool need_gradient) {
  check_matrices("singular_values", "x", x_);
  const Tensor x = walkable(x_, 2);
  const Matrices in("singular_values", x, normalize, center);
  const Device device(x);
  if (in.is_double() || !fits_singular_values(device, in.n))
    return singular_values_by_linalg(x, normalize, center, need_gradient);
  const int64_t n = in.n, kept = need_gradient ? n : 0;
  const Tensor values = empty(in.batch.with({n}), aoti_torch_dtype_float32(), x);
  const Tensor gram = scratch(in.batch.with({kept, kept}), x);
  const Tensor row_norms = scratch(in.batch.with({in.norms()}), x);
  const GramPlan plan(in.b, in.d);
  for_each_group(in.batch.count, plan.bytes() + n * n * int64_t(sizeof(double)), [&](int64_t first, int64_t m) {
    const Tensor partial = launch_gram(device, in, x, row_norms, plan, first, m);
    if (need_gradient) launch_sum(device, partial, plan, m, global<f64>(gram) + first * n * n);
    launch_singular_values(
        device, x, SpectralOptions::for_singular_values(parts_of(partial, plan), m, global<f32>(values) + first * n));
  });
  return {values, gram, row_norms};
}

}  // namespace
}  // namespace svmax::cuda

SVMAX_LIBRARY_IMPL(SVMAX_NAMESPACE, SVMAX_KEY, m) {
  m.impl("gram", TORCH_BOX(&svmax::cuda::gram_cuda));
  m.impl("spectral", TORCH_BOX(&svmax::cuda::spectral_cuda));
  m.impl("backward", TORCH_BOX(&svmax::cuda::backward_cuda));
  m.impl("objective", TORCH_BOX(&svmax::cuda::objective_cuda));
  m.impl("singular_values", TORCH_BOX(&svmax::cuda::singular_values_cuda));
}
