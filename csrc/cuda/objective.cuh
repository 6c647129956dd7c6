// The objective and its slope from nuclear norms that a tensor holds: for what no thread block takes (by_products.h).
#pragma once
#include "../objective.h"
#include "device.cuh"

namespace svmax::cuda {

constexpr int kObjectiveThreads = 128;

// grid (ceil(matrices / threads)). norm, value, slope [matrices]: N, f(N), f'(N).
SVMAX_KERNEL(kObjectiveThreads, 1)
objective_kernel(Objective f, int64_t matrices, Global<const f64> norm, Global<f32> value, Global<f64> slope) {
  const int64_t matrix = int64_t(blockIdx.x) * kObjectiveThreads + int(threadIdx.x);
  if (matrix >= matrices) return;
  const f64 n = norm[matrix];
  value[matrix] = f32(f.value(n));
  slope[matrix] = f.slope(n);
}

}  // namespace svmax::cuda
