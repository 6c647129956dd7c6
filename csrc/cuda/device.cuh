// The small set of CUDA that the kernels are written in, and the names for it. nvcc takes the real thing; the host
// build (tests/host/) puts cuda_on_host.h on the include path, which provides the same names, checked and counted.
//
// A kernel may use, besides plain C++:
//   threadIdx.x, blockIdx.{x,y,z}, blockDim.x, gridDim.{x,y,z}; __syncthreads, __syncwarp, __shfl_sync,
//   __shfl_xor_sync on f64, f32 and int; f64 and f32 with + - * /, comparisons, fma, sqrt, fabs, exp,
//   ldexp, frexp; Shared<T> and Global<T>, which are pointers here and checked pointers there; load2, store2 for two
//   f64 at once.
//
// nvcc is run with -fmad=false: a multiply-add is fused exactly where fma is written, so the host computes the same
// bits as the device, but for exp and what quadrature.h takes of <cmath>, which differ in the last place.
#pragma once
#include <cstdint>

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define SVMAX_DEVICE __device__ __forceinline__
// A kernel with at most `threads` threads a block, of which `blocks` are to fit a multiprocessor.
#define SVMAX_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)

namespace svmax::cuda {

using f64 = double;
using f32 = float;
template <typename T>
using Shared = T*;  // of this block's dynamic shared memory
template <typename T>
using Global = T*;

// Two neighbours in one access, which must be aligned to 16 bytes.
using Pair = double2;
SVMAX_DEVICE Pair load2(const f64* from) { return *reinterpret_cast<const Pair*>(from); }
SVMAX_DEVICE void store2(f64* to, Pair value) { *reinterpret_cast<Pair*>(to) = value; }

// The element types of the input. Named as in csrc/cpu/scalar.h.
using Half = __half;
using BFloat16 = __nv_bfloat16;

// x, as a value that the compiler cannot look behind. Choosing one of several array elements by a run-time index would
// else become a choice of their addresses, and the array would move to local memory.
SVMAX_DEVICE f64 in_register(f64 x) {
  asm volatile("" : "+d"(x));
  return x;
}

SVMAX_DEVICE f64 to_f64(double x) { return x; }
SVMAX_DEVICE f64 to_f64(float x) { return double(x); }
SVMAX_DEVICE f64 to_f64(Half x) { return double(__half2float(x)); }
SVMAX_DEVICE f64 to_f64(BFloat16 x) { return double(__bfloat162float(x)); }

template <typename scalar_t>
SVMAX_DEVICE scalar_t from_f64(f64 x);
template <>
SVMAX_DEVICE double from_f64<double>(f64 x) {
  return x;
}
template <>
SVMAX_DEVICE float from_f64<float>(f64 x) {
  return float(x);
}
// By way of float32, as the CPU kernels do.
template <>
SVMAX_DEVICE Half from_f64<Half>(f64 x) {
  return __float2half_rn(float(x));
}
template <>
SVMAX_DEVICE BFloat16 from_f64<BFloat16>(f64 x) {
  return __float2bfloat16_rn(float(x));
}

// The block's dynamic shared memory, handed out front to back; each piece is aligned to 16 bytes.
class SharedMemory {
 public:
  SVMAX_DEVICE SharedMemory() {
    extern __shared__ __align__(16) unsigned char memory[];
    next_ = memory;
  }
  template <typename T>
  SVMAX_DEVICE Shared<T> take(int count) {
    T* piece = reinterpret_cast<T*>(next_);
    next_ += (count * int(sizeof(T)) + 15) / 16 * 16;
    return piece;
  }

 private:
  unsigned char* next_;
};

}  // namespace svmax::cuda

#else
#include <cuda_on_host.h>
#endif

namespace svmax::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

SVMAX_DEVICE int lane_index() { return int(threadIdx.x) % kWarp; }
SVMAX_DEVICE int warp_index() { return int(threadIdx.x) / kWarp; }

// Bytes that SharedMemory::take<T>(count) uses: for the host, which asks for the sum.
template <typename T>
constexpr int shared_bytes(int count) {
  return (count * int(sizeof(T)) + 15) / 16 * 16;
}

// The sum over a warp's lanes, in every lane; the same bits in each, since x + y = y + x.
template <typename T>
SVMAX_DEVICE T warp_sum(T x) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) x = x + __shfl_xor_sync(kAllLanes, x, mask);
  return x;
}

// The larger one, or NaN if either is: a NaN compares false, so that a plain maximum would depend on the order.
template <typename T>
SVMAX_DEVICE T larger_or_nan(T x, T other) {
  return other > x || other != other ? other : x;
}

template <typename T>
SVMAX_DEVICE T warp_max(T x) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) x = larger_or_nan(x, __shfl_xor_sync(kAllLanes, x, mask));
  return x;
}

}  // namespace svmax::cuda
