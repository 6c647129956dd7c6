// The names of csrc/cuda/device.cuh for the host: kernels compile unchanged, and run checked and counted.
#pragma once
#include <bit>

#include "checked.h"
#include "counted.h"
#include "runtime.h"

// float16 and bfloat16, bit by bit.
#define SVMAX_ISA scalars
#include "cpu/scalar.h"
#undef SVMAX_ISA

#define SVMAX_DEVICE inline
#define SVMAX_KERNEL(threads, blocks) inline void

namespace svmax::cuda {

using scalars::BFloat16, scalars::Half;
using svmax_host::blockDim, svmax_host::blockIdx, svmax_host::gridDim, svmax_host::threadIdx;
using svmax_host::Type, svmax_host::Where;

inline f64 in_register(f64 x) { return x; }

template <typename scalar_t>
f64 to_f64(scalar_t x) {
  return f64(scalars::to_double(x));
}
template <typename scalar_t>
scalar_t from_f64(f64 x) {
  return scalars::from_double<scalar_t>(x.plain());
}

inline void __syncthreads(Where where = Where::current()) { svmax_host::barrier(where); }
inline void __syncwarp(unsigned mask = 0xffffffffu, Where where = Where::current()) {
  svmax_host::sync_warp(mask, where);
}

inline f64 __shfl_sync(unsigned mask, f64 value, int lane, Where where = Where::current()) {
  return std::bit_cast<double>(
      svmax_host::shuffle(mask, Type::F64, std::bit_cast<uint64_t>(value.plain()), lane, where));
}
inline f32 __shfl_sync(unsigned mask, f32 value, int lane, Where where = Where::current()) {
  return std::bit_cast<float>(
      uint32_t(svmax_host::shuffle(mask, Type::F32, std::bit_cast<uint32_t>(value.plain()), lane, where)));
}
inline int __shfl_sync(unsigned mask, int value, int lane, Where where = Where::current()) {
  return int(svmax_host::shuffle(mask, Type::Int, uint32_t(value), lane, where));
}
template <typename T>
auto __shfl_xor_sync(unsigned mask, T value, int lanes, Where where = Where::current()) {
  return __shfl_sync(mask, value, threadIdx.x % svmax_host::kWarpSize ^ lanes, where);
}

// The block's dynamic shared memory, handed out front to back; each piece is aligned to 16 bytes.
class SharedMemory {
 public:
  template <typename T>
  Shared<T> take(int count) {
    // No use for narrower ones, which would share a word of the state that is kept.
    static_assert(sizeof(T) % svmax_host::kWordBytes == 0);
    const int begin = next_, bytes = count * int(sizeof(T));
    next_ += (bytes + 15) / 16 * 16;
    return Shared<T>(SharedPlace{begin, begin, begin + bytes});
  }

 private:
  int next_ = 0;
};

}  // namespace svmax::cuda
