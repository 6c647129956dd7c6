// Kernels without a mistake, that come close to one; what they cost is known, and stands in test_emulator.py.
#include <exception>
#include <string>

#include "cuda/device.cuh"
#include "examples.h"

namespace svmax::cuda {
namespace {

constexpr int kThreads = 64;

// Everything once: the expected counters of a thread are to be read off here.
SVMAX_KERNEL(kThreads, 1)
operations(Global<const f64> in, Global<f64> out) {
  const int thread = threadIdx.x;
  const f64 x = in[thread];
  f64 y = fma(x, x, x + 1) * 2 - 0.5 / (x + 1);
  y = sqrt(y) + ldexp(exp(-fabs(x)), 1);
  if (y < 0) y = 0;
  f32 z = f32(y);
  z = fma(z, z, z) + z * z - z / (z + 1);
  out[thread] = f64(z);
}

// One rounding where fma is written, two where it is not.
SVMAX_KERNEL(kThreads, 1)
rounding(Global<const f64> in, Global<f64> out) {
  const int thread = threadIdx.x;
  const f64 x = in[thread], square = x * x;
  const f32 narrow = f32(x), narrow_square = narrow * narrow;
  if (thread % 4 == 0) out[thread] = fma(x, x, -square);
  if (thread % 4 == 1) out[thread] = x * x - square;
  if (thread % 4 == 2) out[thread] = f64(fma(narrow, narrow, -narrow_square));
  if (thread % 4 == 3) out[thread] = f64(narrow * narrow - narrow_square);
}

// Two barriers, shuffles of every type and a sum, __syncwarp; with an answer that depends on all of them.
SVMAX_KERNEL(kThreads, 1)
waiting(Global<f64> out) {
  const int thread = threadIdx.x;
  const Shared<f64> shared = SharedMemory().take<f64>(kThreads);
  shared[thread] = f64(thread);
  __syncthreads();
  f64 x = shared[kThreads - 1 - thread];
  __syncthreads();
  x = warp_sum(x) + f64(__shfl_sync(kAllLanes, thread, 3));
  x = x + f64(__shfl_xor_sync(kAllLanes, f32(float(lane_index())), 31));
  shared[thread] = x;
  __syncwarp();
  x = shared[thread ^ 1];
  out[thread] = x;
}

// Half a warp for itself: one half shuffles and waits, the other does something else, and ends.
SVMAX_KERNEL(kThreads, 1)
half_warps(Global<f64> out) {
  const int thread = threadIdx.x;
  const Shared<f64> shared = SharedMemory().take<f64>(kThreads);
  if (lane_index() >= 16) {
    out[thread] = f64(-1);
    return;
  }
  shared[thread] = __shfl_xor_sync(0x0000ffffu, f64(thread), 8);
  __syncwarp(0x0000ffffu);
  out[thread] = shared[thread ^ 15];
}

// A lane reads what another one wrote before both met a third, each in a __syncwarp of two.
SVMAX_KERNEL(kThreads, 1)
order_by_way_of_a_third(Global<f64> out) {
  const Shared<f64> shared = SharedMemory().take<f64>(2);
  const int lane = lane_index(), warp = warp_index();
  if (lane == 0) shared[warp] = f64(7);
  if (lane < 2) __syncwarp(0x3u);
  if (lane == 1 || lane == 2) __syncwarp(0x6u);
  if (lane == 2) out[warp] = shared[warp];
}

// Words that change hands at every barrier, between all warps.
SVMAX_KERNEL(kThreads, 1)
changing_hands(Global<f64> out) {
  const int thread = threadIdx.x;
  const Shared<f64> shared = SharedMemory().take<f64>(kThreads);
  shared[thread] = f64(0);
  for (int round = 1; round <= 10; ++round) {
    __syncthreads();
    shared[(thread + 7 * round) % kThreads] += f64(1);
  }
  __syncthreads();
  out[thread] = shared[thread];
}

// ---- bank conflicts: each reads what it has written, one warp

template <typename T>
SVMAX_KERNEL(kWarp, 1)
reads(int step) {
  const Shared<T> shared = SharedMemory().take<T>(kWarp * 33);
  for (int i = 0; i < 33; ++i) shared[i * kWarp + lane_index()] = T(0);
  __syncthreads();
  const T x = shared[lane_index() * step];
  static_cast<void>(x);
}

SVMAX_KERNEL(kWarp, 1) reads_of_pairs() {
  const Shared<f64> shared = SharedMemory().take<f64>(2 * kWarp);
  store2(shared + 2 * lane_index(), {1, 2});
  __syncwarp();
  load2(shared + 2 * lane_index());
}

// Lanes go round the loop up to 32 times: 32, then 31, ... lanes access together.
SVMAX_KERNEL(kWarp, 1) reads_of_a_triangle() {
  const Shared<f32> shared = SharedMemory().take<f32>(kWarp);
  for (int i = lane_index(); i < kWarp; ++i)
    if (i % 2 == 0)
      shared[lane_index()] = f32(0);
    else
      shared[lane_index()] = f32(1);
}

alignas(16) double memory[2][kThreads];
const Global<const f64> in(reinterpret_cast<f64*>(memory[0]), memory[0], memory[0] + kThreads);
const Global<f64> out(reinterpret_cast<f64*>(memory[1]), memory[1], memory[1] + kThreads);

template <typename... Parameters>
void launch(const char* name, int blocks, int threads, void (*kernel)(Parameters...),
            std::type_identity_t<Parameters>... arguments) {
  svmax_host::launch(name, kernel, {blocks}, threads, 16 << 10, arguments...);
}

const svmax_host::Example kExamples[] = {
    {"operations", [] { launch("operations", 3, kThreads, operations, in, out); }},
    {"rounding", [] { launch("rounding", 1, kThreads, rounding, in, out); }},
    {"waiting", [] { launch("waiting", 1, kThreads, waiting, out); }},
    {"half_warps", [] { launch("half_warps", 1, kThreads, half_warps, out); }},
    {"order_by_way_of_a_third", [] { launch("order", 1, kThreads, order_by_way_of_a_third, out); }},
    {"changing_hands", [] { launch("changing_hands", 2, kThreads, changing_hands, out); }},
    {"reads_f32_neighbours", [] { launch("reads<f32>", 1, kWarp, reads<f32>, 1); }},
    {"reads_f32_every_second", [] { launch("reads<f32>", 1, kWarp, reads<f32>, 2); }},
    {"reads_f32_column", [] { launch("reads<f32>", 1, kWarp, reads<f32>, 32); }},
    {"reads_f32_padded_column", [] { launch("reads<f32>", 1, kWarp, reads<f32>, 33); }},
    {"reads_f32_one", [] { launch("reads<f32>", 1, kWarp, reads<f32>, 0); }},
    {"reads_f64_neighbours", [] { launch("reads<f64>", 1, kWarp, reads<f64>, 1); }},
    {"reads_f64_column", [] { launch("reads<f64>", 1, kWarp, reads<f64>, 32); }},
    {"reads_f64_padded_column", [] { launch("reads<f64>", 1, kWarp, reads<f64>, 33); }},
    {"reads_f64_one", [] { launch("reads<f64>", 1, kWarp, reads<f64>, 0); }},
    {"reads_of_pairs", [] { launch("reads_of_pairs", 1, kWarp, reads_of_pairs); }},
    {"reads_of_a_triangle", [] { launch("reads_of_a_triangle", 1, kWarp, reads_of_a_triangle); }},
};

}  // namespace
}  // namespace svmax::cuda

const std::span<const svmax_host::Example> svmax_host::kCorrect = svmax::cuda::kExamples;

namespace {

template <typename F>
void for_each_example(const F& f) {
  for (const auto& examples : {svmax_host::kBroken, svmax_host::kCorrect})
    for (const auto& example : examples) f(example);
}

}  // namespace

extern "C" {

// What is wrong with that kernel, null when it passed; valid until the next call.
[[gnu::visibility("default")]] const char* svmax_host_run_example(const char* name) {
  static std::string message;
  message = "no example has the name " + std::string(name);
  bool passed = false;
  for_each_example([&](const svmax_host::Example& example) {
    if (example.name != std::string(name)) return;
    try {
      example.run();
      passed = true;
    } catch (const std::exception& error) {
      message = error.what();
    }
  });
  return passed ? nullptr : message.c_str();
}

// Their names, one a line.
[[gnu::visibility("default")]] const char* svmax_host_examples() {
  static std::string names;
  names.clear();
  for_each_example([](const svmax_host::Example& example) { names += example.name + std::string("\n"); });
  return names.c_str();
}

// What the last of `operations`, `waiting`, ... has written: 64 numbers.
[[gnu::visibility("default")]] double* svmax_host_example_input() { return svmax::cuda::memory[0]; }
[[gnu::visibility("default")]] const double* svmax_host_example_output() { return svmax::cuda::memory[1]; }

}  // extern "C"
