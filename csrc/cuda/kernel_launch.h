// From tensors to kernels: pointers, strides, the current stream, and the launch. Under nvcc this is CUDA; in the host
// build (tests/host/) the same calls go to the emulator.
#pragma once
#include <string>

#include "../batch.h"
#include "rows.cuh"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#endif

namespace svmax::cuda {

struct Grid {
  int64_t x, y = 1, z = 1;
};

#ifdef __CUDACC__

template <typename T>
Global<T> global(const Tensor& t) {
  return static_cast<T*>(t.data_ptr());
}

inline Tensor never_written(const Tensor& t) { return t; }

inline void check(cudaError_t status, const char* what) {
  STD_TORCH_CHECK(status == cudaSuccess, "svmax: ", what, ": ", cudaGetErrorString(status));
}

// Makes the tensor's device the current one while it lives; kernels go to that device's current stream.
class Device {
 public:
  explicit Device(const Tensor& x) : guard_(x.get_device_index()) {
    void* stream;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
    check(cudaDeviceGetAttribute(&most_shared_bytes_, cudaDevAttrMaxSharedMemoryPerBlockOptin, x.get_device_index()),
          "shared memory of the device");
  }
  int64_t most_shared_bytes() const { return most_shared_bytes_; }

  template <typename... Parameters, typename... Arguments>
  void launch(const char* name, void (*kernel)(Parameters...), Grid grid, int threads, int64_t shared_bytes,
              const Arguments&... arguments) const {
    // More than this is only for kernels that ask for it. Always for the most there is: what another thread asks for at
    // the same time, for a smaller matrix, must not take it away again before this launch.
    if (shared_bytes > 48 << 10)
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most_shared_bytes_), name);
    kernel<<<dim3(unsigned(grid.x), unsigned(grid.y), unsigned(grid.z)), unsigned(threads), size_t(shared_bytes),
             stream_>>>(arguments...);
    check(cudaGetLastError(), name);
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
  int most_shared_bytes_ = 0;
};

#else

template <typename T>
Global<T> global(const Tensor& t) {
  int64_t bytes;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(t.get(), &bytes));
  char* data = static_cast<char*>(t.data_ptr());
  char* begin = data - t.storage_offset() * int64_t(t.element_size());
  return Global<T>(reinterpret_cast<T*>(data), begin, begin + bytes);
}

// New float64 memory: a kernel that reads of it what none has written is reported.
inline Tensor never_written(const Tensor& t) {
  svmax_host::never_written(static_cast<double*>(t.data_ptr()), t.numel());
  return t;
}

class Device {
 public:
  explicit Device(const Tensor&) {}
  int64_t most_shared_bytes() const { return 227 << 10; }  // as sm_90 and sm_100 have

  template <typename... Parameters, typename... Arguments>
  void launch(const char* name, void (*kernel)(Parameters...), Grid grid, int threads, int64_t shared_bytes,
              const Arguments&... arguments) const {
    svmax_host::launch(name, kernel, {int(grid.x), int(grid.y), int(grid.z)}, threads, int(shared_bytes),
                       Parameters(arguments)...);
  }
};

#endif

// A kernel by its name in reports: template arguments make commas, so it stands in parentheses.
#define SVMAX_LAUNCH(device, kernel, ...) (device).launch(#kernel, kernel, __VA_ARGS__)

// The batch as kernels walk it. `inner` dimensions are the item.
inline Strides strides_of(const Batch& batch) {
  Strides result{};
  // Dimensions that follow each other in memory are one; what then is left fits, or the tensor was made contiguous.
  for (size_t i = 0; i < batch.sizes.size(); ++i) {
    if (batch.sizes[i] == 1) continue;
    const int last = result.count - 1;
    if (last >= 0 && result.stride[last] == batch.sizes[i] * batch.strides[i]) {
      result.size[last] *= batch.sizes[i];
      result.stride[last] = batch.strides[i];
      continue;
    }
    if (result.count == Strides::kMost) return {-1, {}, {}};
    result.size[result.count] = batch.sizes[i];
    result.stride[result.count++] = batch.strides[i];
  }
  return result;
}

// x itself, or a copy where its batch has more strides than kernels walk.
inline Tensor walkable(const Tensor& x, int64_t inner) {
  return x.dim() >= inner && strides_of(Batch(x, inner)).count < 0 ? torch::stable::contiguous(x) : x;
}

}  // namespace svmax::cuda
