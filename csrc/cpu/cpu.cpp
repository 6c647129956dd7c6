// Registers the CPU kernels with torch's dispatcher.
#include <torch/csrc/stable/library.h>

#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include "../batch.h"
#include "../by_linalg.h"
#include "for_each_matrix.h"

namespace svmax {
namespace {

Tensor new_doubles(const std::vector<int64_t>& sizes, const Tensor& like) {
  return empty(sizes, aoti_torch_dtype_float64(), like);
}
Tensor new_floats(const std::vector<int64_t>& sizes, const Tensor& like) {
  return empty(sizes, aoti_torch_dtype_float32(), like);
}
Tensor new_bools(const std::vector<int64_t>& sizes, const Tensor& like) {
  return empty(sizes, aoti_torch_dtype_bool(), like);
}
double* doubles(const Tensor& t) { return static_cast<double*>(t.data_ptr()); }
float* floats(const Tensor& t) { return static_cast<float*>(t.data_ptr()); }
bool* bools(const Tensor& t) { return static_cast<bool*>(t.data_ptr()); }

std::tuple<Tensor, Tensor> gram_cpu(const Tensor x, bool normalize, bool center) {
  const Matrices in("gram", x, normalize, center);
  const Tensor gram = new_doubles(in.batch.with({in.n, in.n}), x);
  const Tensor row_norms = new_doubles(in.batch.with({in.norms()}), x);
  for_each_matrix(in.batch.count, in.b * in.d * in.n / 2, [&](int64_t i, Workspace& workspace, const Pool& pool) {
    kernels().gram(in.at(i), doubles(gram) + i * in.n * in.n, doubles(row_norms) + i * in.norms(), workspace, pool);
  });
  return {gram, row_norms};
}

std::tuple<Tensor, Tensor, Tensor> spectral_cpu(const Tensor gram, bool need_inverse_sqrt) {
  check_gram(gram);
  const Tensor in = torch::stable::contiguous(gram);
  const Batch batch(in, 2);
  const int64_t n = in.size(-1), kept = need_inverse_sqrt ? n : 0;
  const Tensor norm = new_doubles(batch.with({}), in);
  const Tensor inverse_sqrt = new_doubles(batch.with({kept, kept}), in);
  const Tensor in_float32 = new_bools(batch.with({need_inverse_sqrt ? 1 : 0}), in);
  for_each_matrix(batch.count, n * n * n, [&](int64_t i, Workspace& workspace, const Pool& pool) {
    const double* g = doubles(in) + i * n * n;
    doubles(norm)[i] = need_inverse_sqrt
                           ? kernels().spectral_with_inverse_sqrt(g, n, doubles(inverse_sqrt) + i * n * n,
                                                                  bools(in_float32) + i, quadrature(), workspace, pool)
                           : kernels().spectral(g, n, quadrature(), workspace, pool);
  });
  return {norm, inverse_sqrt, in_float32};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> objective_cpu(const Tensor x, std::string name, bool normalize, bool center,
                                                         bool need_gradient) {
  const Matrices in("objective", x, normalize, center);
  const Objective f = objective_of(name, in, x);
  if (in.is_double()) return objective_by_linalg(x, name, normalize, center, need_gradient);
  const int64_t kept = need_gradient ? in.n : 0;
  const Tensor value = new_floats(in.batch.with({}), x);
  const Tensor weight = new_doubles(in.batch.with({kept, kept}), x);
  const Tensor in_float32 = new_bools(in.batch.with({need_gradient ? 1 : 0}), x);
  const Tensor row_norms = new_doubles(in.batch.with({in.norms()}), x);
  const int64_t work = in.n * in.n * (in.b + in.d);
  for_each_matrix(in.batch.count, work, [&](int64_t i, Workspace& workspace, const Pool& pool) {
    double* norms = doubles(row_norms) + i * in.norms();
    floats(value)[i] = float(
        need_gradient ? kernels().objective_with_weight(in.at(i), f, doubles(weight) + i * in.n * in.n,
                                                        bools(in_float32) + i, norms, quadrature(), workspace, pool)
                      : kernels().objective(in.at(i), f, norms, quadrature(), workspace, pool));
  });
  return {value, weight, in_float32, row_norms};
}

Tensor backward_cpu(const Tensor grad, const Tensor x, const Tensor weight_, const Tensor in_float32_,
                    const Tensor row_norms_, std::string, bool normalize, bool center) {
  const Matrices in("backward", x, normalize, center);
  check_backward(in, grad, x, weight_, in_float32_, row_norms_);
  const Tensor weight = torch::stable::contiguous(weight_), in_float32 = torch::stable::contiguous(in_float32_);
  const Tensor row_norms = torch::stable::contiguous(row_norms_);
  const Tensor dx = empty(in.batch.with({in.b, in.d}), in.dtype, x);
  const Batch grads(grad, 0);
  const bool double_grad = grad.scalar_type() == ScalarType::Double;
  for_each_matrix(in.batch.count, in.b * in.d * in.n, [&](int64_t i, Workspace& workspace, const Pool& pool) {
    const int64_t at = grads.offset(i);
    kernels().backward(in.at(i), double_grad ? doubles(grad)[at] : double(floats(grad)[at]),
                       doubles(weight) + i * in.n * in.n, bools(in_float32)[i], doubles(row_norms) + i * in.norms(),
                       static_cast<char*>(dx.data_ptr()) + i * in.b * in.d * in.element, workspace, pool);
  });
  return dx;
}

std::tuple<Tensor, Tensor, Tensor> singular_values_cpu(const Tensor x, bool normalize, bool center,
                                                       bool need_gradient) {
  const Matrices in("singular_values", x, normalize, center);
  if (in.is_double()) return singular_values_by_linalg(x, normalize, center, need_gradient);
  const int64_t kept = need_gradient ? in.n : 0;
  const Tensor values = new_floats(in.batch.with({in.n}), x);
  const Tensor gram = new_doubles(in.batch.with({kept, kept}), x);
  const Tensor row_norms = new_doubles(in.batch.with({in.norms()}), x);
  const int64_t work = in.n * in.n * (in.b + in.d);
  for_each_matrix(in.batch.count, work, [&](int64_t i, Workspace& workspace, const Pool& pool) {
    double* norms = doubles(row_norms) + i * in.norms();
    std::vector<double> s(size_t(in.n), 0.0);
    if (need_gradient)
      kernels().singular_values_with_gram(in.at(i), s.data(), doubles(gram) + i * in.n * in.n, norms, workspace, pool);
    else
      kernels().singular_values(in.at(i), s.data(), norms, workspace, pool);
    for (int64_t k = 0; k < in.n; ++k) floats(values)[i * in.n + k] = float(s[size_t(k)]);
  });
  return {values, gram, row_norms};
}

}  // namespace
}  // namespace svmax

STABLE_TORCH_LIBRARY_IMPL(svmax, CPU, m) {
  m.impl("gram", TORCH_BOX(&svmax::gram_cpu));
  m.impl("spectral", TORCH_BOX(&svmax::spectral_cpu));
  m.impl("backward", TORCH_BOX(&svmax::backward_cpu));
  m.impl("objective", TORCH_BOX(&svmax::objective_cpu));
  m.impl("singular_values", TORCH_BOX(&svmax::singular_values_cpu));
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
