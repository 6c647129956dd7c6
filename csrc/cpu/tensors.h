// Torch's tensors, threads and memory as the kernels want them: pointers with strides, a pool, scratch memory.
#pragma once
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "../contracts.h"
#include "instruction_set.h"

namespace svmax {

// ---- scratch memory, kept by each thread for its next call unless it is large

// The scratch of a 512x512 matrix; page faults would cost a small call more than its work.
constexpr int64_t kKeptBytes = 16 << 20;

class WorkspaceLease {
 public:
  WorkspaceLease() : workspace_(std::move(kept())) {
    if (!workspace_) workspace_ = {kernels().new_workspace(), kernels().delete_workspace};
  }
  ~WorkspaceLease() {
    if (kernels().workspace_bytes(*workspace_) <= kKeptBytes) kept() = std::move(workspace_);
  }
  Workspace& operator*() const { return *workspace_; }

 private:
  using Owner = std::unique_ptr<Workspace, void (*)(Workspace*)>;
  static Owner& kept() {
    thread_local Owner workspace{nullptr, nullptr};
    return workspace;
  }
  Owner workspace_;
};

// ---- tensors in and out

inline Tensor empty(const std::vector<int64_t>& sizes, int32_t dtype) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(sizes[i], 1);
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(), strides.data(), dtype,
                                                  aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

// The batch dimensions of a tensor whose last `inner` dimensions are the item; walks over any strides.
struct Batch {
  std::vector<int64_t> sizes, strides;
  int64_t count = 1;

  Batch(const Tensor& t, int64_t inner) {
    const int64_t outer = t.dim() - inner;
    sizes.assign(t.sizes().begin(), t.sizes().begin() + outer);
    strides.assign(t.strides().begin(), t.strides().begin() + outer);
    for (const int64_t size : sizes) count *= size;
  }
  int64_t offset(int64_t index) const {
    int64_t at = 0;
    for (size_t i = sizes.size(); i-- > 0; index /= sizes[i]) at += index % sizes[i] * strides[i];
    return at;
  }
  std::vector<int64_t> with(std::initializer_list<int64_t> inner) const {
    std::vector<int64_t> all = sizes;
    all.insert(all.end(), inner);
    return all;
  }
};

inline Scalar scalar_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Half:
      return Scalar::Half;
    case ScalarType::BFloat16:
      return Scalar::BFloat16;
    case ScalarType::Float:
      return Scalar::Float;
    default:
      return Scalar::Double;
  }
}

// x [..., b, d]: what every op starts from.
struct Matrices {
  Batch batch;
  Input first;
  int64_t b, d, n, element;
  int32_t dtype, result_dtype;

  Matrices(const char* op, const Tensor& x, bool normalize, bool center) : batch((check_matrices(op, "x", x), x), 2) {
    b = x.size(-2), d = x.size(-1), n = std::min(b, d);
    first = {x.data_ptr(), scalar_of(x), b, d, x.stride(-2), x.stride(-1), normalize, center};
    element = int64_t(x.element_size());
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
    result_dtype = is_double() ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32();
  }
  bool is_double() const { return first.scalar == Scalar::Double; }
  Input at(int64_t i) const {
    Input input = first;
    input.x = static_cast<const char*>(first.x) + batch.offset(i) * element;
    return input;
  }
  int64_t norms() const { return first.normalize ? b : 0; }
};

inline void write(const Tensor& out, int64_t at, double value) {
  if (out.scalar_type() == ScalarType::Double)
    static_cast<double*>(out.data_ptr())[at] = value;
  else
    static_cast<float*>(out.data_ptr())[at] = float(value);
}

inline double read(const Tensor& t, int64_t at) {
  return t.scalar_type() == ScalarType::Double ? static_cast<const double*>(t.data_ptr())[at]
                                               : double(static_cast<const float*>(t.data_ptr())[at]);
}

inline double* doubles(const Tensor& t) { return static_cast<double*>(t.data_ptr()); }

// torch.linalg refuses NaN and inf: such a matrix is decomposed as zeros, and its results are made NaN afterwards.
inline bool zero_unless_finite(double* matrix, int64_t count) {
  bool finite = true;
  for (int64_t j = 0; j < count; ++j) finite &= std::isfinite(matrix[j]);
  if (!finite) std::fill_n(matrix, count, 0.0);
  return finite;
}

// ---- threads: over the matrices of a batch, or within the one matrix there is

inline void run_in_torch_pool(int64_t count, int64_t grain, Pool::Body body, void* context) {
  TORCH_ERROR_CODE_CHECK(torch_parallel_for(0, count, grain, body, context));
}

// f(i, workspace, pool) for every matrix; work: multiply-adds of one.
template <typename F>
void for_each_matrix(int64_t count, int64_t work, const F& f) {
  constexpr int64_t kWorthAThread = 200000;  // multiply-adds; handing over takes some microseconds
  if (count == 0) return;
  const Pool serial{run_in_torch_pool, 1};
  if (count == 1) {
    WorkspaceLease lease;
    return f(int64_t(0), *lease, Pool{run_in_torch_pool, int64_t(torch::stable::get_num_threads())});
  }
  const Pool batch{run_in_torch_pool, 2};  // any number above one: torch decides
  batch.each(count, std::max<int64_t>(1, kWorthAThread / std::max<int64_t>(work, 1)), [&](int64_t begin, int64_t end) {
    WorkspaceLease lease;
    for (int64_t i = begin; i < end; ++i) f(i, *lease, serial);
  });
}

}  // namespace svmax
