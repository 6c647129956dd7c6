// Registers the CUDA kernels with torch's dispatcher; in the host build (tests/host/) the same code under another name.
#include "../namespace.h"
#include "float64.h"
#include "large.h"
#include "stages.h"

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

std::tuple<Tensor, Tensor> spectral_cuda(const Tensor gram_, bool need_inverse_sqrt) {
  check_gram(gram_);
  const Tensor gram = torch::stable::contiguous(gram_);
  const Batch batch(gram, 2);
  const int64_t n = gram.size(-1), kept = need_inverse_sqrt ? n : 0;
  const Device device(gram);
  if (n > kMostInBlock) {
    const Spectral result = spectral_by_products(gram, need_inverse_sqrt);
    // At collapse the nuclear norm is taken from eigenvalues; each matrix's block sees for itself whether that is so.
    if (fits_singular_values(device, n)) {
      for_each_group(batch.count, n * n * int64_t(sizeof(double)), [&](int64_t first, int64_t m) {
        SpectralOptions options{};
        options.gram = {global<const f64>(gram) + first * n * n, 1, int(n)};
        options.matrices = int(m);
        options.nuclear_norm = global<f64>(result.nuclear_norm) + first;
        options.lost = global<const f64>(result.lost) + first;
        launch_singular_values(device, gram, options, nullptr);
      });
    }
    return {result.nuclear_norm, result.inverse_sqrt};
  }
  const Tensor norm = scratch(batch.with({}), gram);
  const Tensor inverse_sqrt = scratch(batch.with({kept, kept}), gram);
  for_each_group(batch.count, factor_bytes(n), [&](int64_t first, int64_t m) {
    SpectralOptions options{};
    options.gram = {global<const f64>(gram) + first * n * n, 1, int(n)};
    options.matrices = int(m);
    options.objective = {Objective::Kind::Linear, 1, 0, 0, 0};
    options.nuclear_norm = global<f64>(norm) + first;
    launch_spectral(device, gram, options,
                    need_inverse_sqrt ? global<f64>(inverse_sqrt) + first * n * n : Global<f64>(nullptr));
  });
  return {norm, inverse_sqrt};
}

std::tuple<Tensor, Tensor, Tensor> objective_cuda(const Tensor x_, std::string name, bool normalize, bool center,
                                                  bool need_gradient) {
  check_matrices("objective", "x", x_);
  const Tensor x = walkable(x_, 2);
  const Matrices in("objective", x, normalize, center);
  const Objective f = objective_of(name, in, x);
  const Device device(x);
  if (in.is_double()) return objective_by_svd(x, f, normalize, center, need_gradient);
  if (in.n > kMostInBlock) return objective_by_products(x, f, normalize, center, need_gradient);
  const int64_t n = in.n, kept = need_gradient ? n : 0;
  const Tensor value = empty(in.batch.with({}), in.result_dtype, x);
  const Tensor weight = scratch(in.batch.with({kept, kept}), x);
  const Tensor row_norms = scratch(in.batch.with({in.norms()}), x);
  const GramPlan plan(in.b, in.d);
  for_each_group(in.batch.count, plan.bytes() + factor_bytes(n), [&](int64_t first, int64_t m) {
    const Tensor partial = launch_gram(device, in, x, row_norms, plan, first, m);
    SpectralOptions options{};
    options.gram = parts_of(partial, plan);
    options.matrices = int(m);
    options.objective = f;
    options.value = global<f32>(value) + first;
    launch_spectral(device, x, options, need_gradient ? global<f64>(weight) + first * n * n : Global<f64>(nullptr));
  });
  return {value, weight, row_norms};
}

Tensor backward_cuda(const Tensor grad_, const Tensor x_, const Tensor weight_, const Tensor row_norms_, std::string,
                     bool normalize, bool center) {
  check_matrices("backward", "x", x_);
  const Tensor x = walkable(x_, 2);
  const Matrices in("backward", x, normalize, center);
  check_kept("backward", "weight", weight_, in.batch.count, in.n * in.n);
  check_kept("backward", "row_norms", row_norms_, in.batch.count, in.norms());
  check_grad("backward", grad_, in.batch.count, 1);
  check_same_device("backward", x, {{"grad", grad_}, {"weight", weight_}, {"row_norms", row_norms_}});
  const Device device(x);
  const Tensor weight = torch::stable::contiguous(weight_), row_norms = torch::stable::contiguous(row_norms_);
  if (!fits_backward(device, in)) return backward_by_products(grad_, x, weight, row_norms, normalize, center);
  const Tensor dx = empty(in.batch.with({in.b, in.d}), in.dtype, x);
  launch_backward(device, in, walkable(grad_, 0), x, without_null_direction(weight, in), row_norms, dx);
  return dx;
}

std::tuple<Tensor, Tensor, Tensor> singular_values_cuda(const Tensor x_, bool normalize, bool center,
                                                        bool need_gradient) {
  check_matrices("singular_values", "x", x_);
  const Tensor x = walkable(x_, 2);
  const Matrices in("singular_values", x, normalize, center);
  const Device device(x);
  if (in.is_double() || !fits_singular_values(device, in.n))
    return singular_values_by_svd(x, normalize, center, need_gradient);
  const int64_t n = in.n, kept = need_gradient ? n : 0;
  const Tensor values = empty(in.batch.with({n}), in.result_dtype, x);
  const Tensor gram = scratch(in.batch.with({kept, kept}), x);
  const Tensor row_norms = scratch(in.batch.with({in.norms()}), x);
  const GramPlan plan(in.b, in.d);
  for_each_group(in.batch.count, plan.bytes() + n * n * int64_t(sizeof(double)), [&](int64_t first, int64_t m) {
    const Tensor partial = launch_gram(device, in, x, row_norms, plan, first, m);
    if (need_gradient) launch_sum(device, partial, plan, m, global<f64>(gram) + first * n * n);
    SpectralOptions options{};
    options.gram = parts_of(partial, plan);
    options.matrices = int(m);
    launch_singular_values(device, x, options, global<f32>(values) + first * n);
  });
  return {values, gram, row_norms};
}

Tensor singular_values_backward_cuda(const Tensor grad, const Tensor x, const Tensor gram, const Tensor row_norms,
                                     bool normalize, bool center) {
  const Matrices in("singular_values_backward", x, normalize, center);
  check_kept("singular_values_backward", "gram", gram, in.batch.count, in.n * in.n);
  check_kept("singular_values_backward", "row_norms", row_norms, in.batch.count, in.norms());
  check_grad("singular_values_backward", grad, in.batch.count, in.n);
  check_same_device("singular_values_backward", x, {{"grad", grad}, {"gram", gram}, {"row_norms", row_norms}});
  const Device device(x);
  return singular_values_backward(grad, x, gram, torch::stable::contiguous(row_norms), normalize, center);
}

}  // namespace
}  // namespace svmax::cuda

SVMAX_LIBRARY_IMPL(SVMAX_NAMESPACE, SVMAX_KEY, m) {
  m.impl("gram", TORCH_BOX(&svmax::cuda::gram_cuda));
  m.impl("spectral", TORCH_BOX(&svmax::cuda::spectral_cuda));
  m.impl("backward", TORCH_BOX(&svmax::cuda::backward_cuda));
  m.impl("objective", TORCH_BOX(&svmax::cuda::objective_cuda));
  m.impl("singular_values", TORCH_BOX(&svmax::cuda::singular_values_cuda));
  m.impl("singular_values_backward", TORCH_BOX(&svmax::cuda::singular_values_backward_cuda));
}
