// The matrices of a batch over torch's threads, each thread with scratch memory of its own.
#pragma once
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

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
