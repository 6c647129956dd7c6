// Registers the CPU kernels with torch's dispatcher.
#include <torch/csrc/stable/library.h>

#include <cstring>
#include <tuple>

#include "float64.h"

namespace svmax {
namespace {

std::tuple<Tensor, Tensor> gram_cpu(const Tensor x, bool normalize, bool center) {
  const Matrices in("gram", x, normalize, center);
  const Tensor gram = empty(in.batch.with({in.n, in.n}), aoti_torch_dtype_float64(), x);
  const Tensor row_norms = empty(in.batch.with({in.norms()}), aoti_torch_dtype_float64(), x);
  for_each_matrix(in.batch.count, in.b * in.d * in.n / 2, [&](int64_t i, Workspace& workspace, const Pool& pool) {
    kernels().gram(in.at(i), doubles(gram) + i * in.n * in.n, doubles(row_norms) + i * in.norms(), workspace, pool);
  });
  return {gram, row_norms};
}

std::tuple<Tensor, Tensor> spectral_cpu(const Tensor gram, bool need_inverse_sqrt) {
  check_gram(gram);
  const Tensor in = torch::stable::contiguous(gram);
  const Batch batch(in, 2);
  const int64_t n = in.size(-1), kept = need_inverse_sqrt ? n : 0;
  const Tensor norm = empty(batch.with({}), aoti_torch_dtype_float64(), in);
  const Tensor inverse_sqrt = empty(batch.with({kept, kept}), aoti_torch_dtype_float64(), in);
  for_each_matrix(batch.count, n * n * n, [&](int64_t i, Workspace& workspace, const Pool& pool) {
    double* w = need_inverse_sqrt ? doubles(inverse_sqrt) + i * n * n : nullptr;
    doubles(norm)[i] = kernels().spectral(doubles(in) + i * n * n, n, w, quadrature(), workspace, pool);
  });
  return {norm, inverse_sqrt};
}

std::tuple<Tensor, Tensor, Tensor> objective_cpu(const Tensor x, std::string name, bool normalize, bool center,
                                                 bool need_gradient) {
  const Matrices in("objective", x, normalize, center);
  const Objective f = objective_of(name, in, x);
  const int64_t kept = need_gradient ? in.n : 0;
  const Tensor value = empty(in.batch.with({}), in.result_dtype, x);
  const Tensor weight = empty(in.batch.with({kept, kept}), aoti_torch_dtype_float64(), x);
  const Tensor row_norms = empty(in.batch.with({in.norms()}), aoti_torch_dtype_float64(), x);
  std::optional<Decomposition> decomposition;
  if (in.is_double() && in.batch.count > 0) decomposition = svd(in, row_norms);
  const int64_t work = in.n * in.n * (in.b + in.d);
  for_each_matrix(in.batch.count, work, [&](int64_t i, Workspace& workspace, const Pool& pool) {
    double* w = need_gradient ? doubles(weight) + i * in.n * in.n : nullptr;
    if (!decomposition) {
      write(value, i,
            kernels().objective(in.at(i), f, w, doubles(row_norms) + i * in.norms(), quadrature(), workspace, pool));
      return;
    }
    const double* s = doubles(decomposition->values) + i * in.n;
    double norm = 0;
    for (int64_t k = in.n - 1; k >= 0; --k) norm += s[k];
    if (!decomposition->finite[size_t(i)]) norm = NAN;
    write(value, i, f.value(norm));
    if (w == nullptr) return;
    const auto factor = over_singular_values(s, in.n, std::max(in.b, in.d), [&](int64_t) { return f.slope(norm); });
    weight_from_svd(in, *decomposition, i, factor, w, workspace);
  });
  return {value, weight, row_norms};
}

void run_backward(const Matrices& in, const Tensor& weight, const Tensor& row_norms, const Tensor& dx,
                  const Tensor* grad) {
  const Batch grads(grad ? *grad : dx, grad ? 0 : 2);
  for_each_matrix(in.batch.count, in.b * in.d * in.n, [&](int64_t i, Workspace& workspace, const Pool& pool) {
    kernels().backward(in.at(i), grad ? read(*grad, grads.offset(i)) : 1.0, doubles(weight) + i * in.n * in.n,
                       doubles(row_norms) + i * in.norms(),
                       static_cast<char*>(dx.data_ptr()) + i * in.b * in.d * in.element, workspace, pool);
  });
}

Tensor backward_cpu(const Tensor grad, const Tensor x, const Tensor weight_, const Tensor row_norms_, std::string,
                    bool normalize, bool center) {
  const Matrices in("backward", x, normalize, center);
  check_kept("backward", "weight", weight_, in.batch.count, in.n * in.n);
  check_kept("backward", "row_norms", row_norms_, in.batch.count, in.norms());
  check_grad("backward", grad, in.batch.count, 1);
  const Tensor weight = torch::stable::contiguous(weight_), row_norms = torch::stable::contiguous(row_norms_);
  const Tensor dx = empty(in.batch.with({in.b, in.d}), in.dtype, x);
  run_backward(in, weight, row_norms, dx, &grad);
  return dx;
}

std::tuple<Tensor, Tensor, Tensor> singular_values_cpu(const Tensor x, bool normalize, bool center,
                                                       bool need_gradient) {
  const Matrices in("singular_values", x, normalize, center);
  const int64_t kept = need_gradient ? in.n : 0;
  const Tensor values = empty(in.batch.with({in.n}), in.result_dtype, x);
  const Tensor gram = empty(in.batch.with({kept, kept}), aoti_torch_dtype_float64(), x);
  const Tensor row_norms = empty(in.batch.with({in.norms()}), aoti_torch_dtype_float64(), x);
  std::optional<Decomposition> decomposition;
  if (in.is_double() && in.batch.count > 0) decomposition = svd(in, row_norms);
  const int64_t work = in.n * in.n * (in.b + in.d);
  for_each_matrix(in.batch.count, work, [&](int64_t i, Workspace& workspace, const Pool& pool) {
    double* g = need_gradient ? doubles(gram) + i * in.n * in.n : nullptr;
    std::vector<double> s(size_t(in.n), NAN);
    if (!decomposition) {
      kernels().singular_values(in.at(i), s.data(), g, doubles(row_norms) + i * in.norms(), workspace, pool);
    } else {
      if (decomposition->finite[size_t(i)]) std::copy_n(doubles(decomposition->values) + i * in.n, in.n, s.data());
      if (g != nullptr) std::fill_n(g, in.n * in.n, 0.0);  // the backward decomposes E again instead
    }
    for (int64_t k = 0; k < in.n; ++k) write(values, i * in.n + k, s[size_t(k)]);
  });
  return {values, gram, row_norms};
}

// dX = U diag(g) V' = E W_g with W_g = V diag(g / s) V', from the eigenvectors of the Gram matrix (wide: W_g E).
Tensor singular_values_backward_cpu(const Tensor grad, const Tensor x, const Tensor gram_, const Tensor row_norms_,
                                    bool normalize, bool center) {
  const Matrices in("singular_values_backward", x, normalize, center);
  check_kept("singular_values_backward", "gram", gram_, in.batch.count, in.n * in.n);
  check_kept("singular_values_backward", "row_norms", row_norms_, in.batch.count, in.norms());
  check_grad("singular_values_backward", grad, in.batch.count, in.n);
  const Tensor row_norms = torch::stable::contiguous(row_norms_), dx = empty(in.batch.with({in.b, in.d}), in.dtype, x);
  if (in.batch.count == 0) return dx;
  const Batch grads(grad, 1);
  const auto g = [&](int64_t i, int64_t k) { return read(grad, grads.offset(i) + k * grad.stride(-1)); };
  const Tensor weight = empty({in.batch.count, in.n, in.n}, aoti_torch_dtype_float64(), x);
  if (in.is_double()) {
    const Decomposition decomposition = svd(in, row_norms);
    for_each_matrix(in.batch.count, in.n * in.n * in.n, [&](int64_t i, Workspace& workspace, const Pool&) {
      const auto factor = over_singular_values(doubles(decomposition.values) + i * in.n, in.n, std::max(in.b, in.d),
                                               [&](int64_t k) { return g(i, k); });
      weight_from_svd(in, decomposition, i, factor, doubles(weight) + i * in.n * in.n, workspace);
    });
  } else {
    const Tensor gram = torch::stable::clone(gram_);
    std::vector<char> finite(size_t(in.batch.count), 1);
    for (int64_t i = 0; i < in.batch.count; ++i)
      finite[size_t(i)] = zero_unless_finite(doubles(gram) + i * in.n * in.n, in.n * in.n);
    std::array<StableIValue, 2> stack{torch::stable::detail::from(gram), torch::stable::detail::from(std::string("L"))};
    TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::linalg_eigh", "", stack.data(), TORCH_ABI_VERSION));
    const Tensor values = torch::stable::detail::to<Tensor>(stack[0]);
    const Tensor vectors = torch::stable::detail::to<Tensor>(stack[1]);
    const int64_t per_matrix = in.n * in.n, m = in.batch.count;
    const int64_t matrix_stride = vectors.dim() > 2 && m > 1 ? vectors.stride(-3) : per_matrix;
    for_each_matrix(m, in.n * in.n * in.n, [&](int64_t i, Workspace& workspace, const Pool&) {
      const double* lambda = doubles(values) + i * in.n;  // ascending
      // The shift of the stage `spectral`, so that |P| <= 1 + 1e-8 here too where s is rounding noise.
      const double shift = 4 * std::numeric_limits<double>::epsilon() * lambda[in.n - 1];
      std::vector<double> factor(size_t(in.n), 0.0);
      for (int64_t k = 0; k < in.n && shift > 0; ++k)
        factor[size_t(k)] = g(i, in.n - 1 - k) / std::sqrt(std::max(lambda[k], 0.0) + shift);
      double* w = doubles(weight) + i * per_matrix;
      kernels().sum_of_outer_products(doubles(vectors) + i * matrix_stride, vectors.stride(-1), vectors.stride(-2),
                                      factor.data(), in.n, w, workspace);
      if (!finite[size_t(i)]) std::fill_n(w, per_matrix, NAN);
    });
  }
  run_backward(in, weight, row_norms, dx, nullptr);
  return dx;
}

}  // namespace
}  // namespace svmax

STABLE_TORCH_LIBRARY_IMPL(svmax, CPU, m) {
  m.impl("gram", TORCH_BOX(&svmax::gram_cpu));
  m.impl("spectral", TORCH_BOX(&svmax::spectral_cpu));
  m.impl("backward", TORCH_BOX(&svmax::backward_cpu));
  m.impl("objective", TORCH_BOX(&svmax::objective_cpu));
  m.impl("singular_values", TORCH_BOX(&svmax::singular_values_cpu));
  m.impl("singular_values_backward", TORCH_BOX(&svmax::singular_values_backward_cpu));
}

// For svmax_ops/backends/native.py, through ctypes: `svmax info` names the instruction set, and the tests run them all.
extern "C" __attribute__((visibility("default"))) const char* svmax_instruction_set() { return svmax::chosen()->name; }

// Returns false, and changes nothing, for a name that is not built in or does not run here. Not while an op runs.
extern "C" __attribute__((visibility("default"))) bool svmax_use_instruction_set(const char* name) {
  for (const svmax::InstructionSet& set : svmax::instruction_sets()) {
    if (std::strcmp(set.name, name) != 0 || !set.runs_here) continue;
    svmax::chosen() = &set;
    return true;
  }
  return false;
}
