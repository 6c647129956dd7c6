// How a function is marked that the CPU kernels, the CUDA kernels and the host share.
//
// Always inlined: on the CPU such functions are all that the files of several instruction sets share, and merged copies
// would run the wrong one.
#pragma once

#ifdef __CUDACC__
#define SVMAX_EVERYWHERE __host__ __device__ __forceinline__
#define SVMAX_UNROLL _Pragma("unroll")  // so that arrays can stay in registers
#else
#define SVMAX_EVERYWHERE [[gnu::always_inline]] inline
#define SVMAX_UNROLL
#endif
