// Torch's threads and memory as the CPU kernels want them: a pool, scratch memory, numbers in and out.
#pragma once
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "../tensors.h"
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
