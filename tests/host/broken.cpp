// Kernels with one mistake each. test_emulator.py runs them all, and knows the line of the mistake by its comment.
#include "cuda/device.cuh"
#include "examples.h"

namespace svmax::cuda {
namespace {

constexpr int kThreads = 64;

// ---- barriers

SVMAX_KERNEL(kThreads, 1)
divergent_barrier() {
  if (warp_index() == 0)
    __syncthreads();
  else
    __syncthreads();  // here: divergent_barrier
}

SVMAX_KERNEL(kThreads, 1)
barrier_after_exit() {
  if (threadIdx.x == 0) return;
  __syncthreads();  // here: barrier_after_exit
}

SVMAX_KERNEL(kThreads, 1)
exit_while_others_wait() {
  if (threadIdx.x == 63) return;
  __syncthreads();  // here: exit_while_others_wait
}

SVMAX_KERNEL(kThreads, 1)
barrier_while_others_shuffle(Global<f64> out) {
  f64 x = 1;
  if (lane_index() == 31) __syncthreads();
  x = __shfl_xor_sync(kAllLanes, x, 1);  // here: barrier_while_others_shuffle
  out[threadIdx.x] = x;
}

// ---- shuffles

SVMAX_KERNEL(kThreads, 1)
shuffle_with_exited_lane() {
  if (lane_index() == 0) return;
  __shfl_sync(kAllLanes, f64(1), 1);  // here: shuffle_with_exited_lane
}

SVMAX_KERNEL(kThreads, 1)
exit_while_others_shuffle() {
  if (lane_index() == 31) return;
  __shfl_sync(kAllLanes, f64(1), 0);  // here: exit_while_others_shuffle
}

SVMAX_KERNEL(kThreads, 1)
shuffle_with_lane_at_barrier() {
  if (lane_index() == 0) __syncthreads();
  __shfl_sync(kAllLanes, 1, 0);  // here: shuffle_with_lane_at_barrier
}

SVMAX_KERNEL(kThreads, 1)
shuffle_from_lane_outside_mask() {
  if (lane_index() < 16) __shfl_sync(0x0000ffffu, f64(1), 20);  // here: shuffle_from_lane_outside_mask
}

SVMAX_KERNEL(kThreads, 1)
shuffle_by_lane_outside_mask() {
  __shfl_xor_sync(0xffff0000u, f64(1), 1);  // here: shuffle_by_lane_outside_mask
}

SVMAX_KERNEL(kThreads, 1)
shuffle_with_different_masks() {
  const unsigned mask = lane_index() < 8 ? 0x0000ffffu : 0x00ffffffu;
  if (lane_index() < 24) __shfl_sync(mask, f64(1), 0);  // here: shuffle_with_different_masks
}

SVMAX_KERNEL(kThreads, 1)
shuffle_on_two_lines() {
  if (lane_index() < 16)
    __shfl_sync(kAllLanes, f64(1), 0);
  else
    __shfl_sync(kAllLanes, f64(1), 0);  // here: shuffle_on_two_lines
}

SVMAX_KERNEL(kThreads, 1)
syncwarp_in_a_branch() {
  if (lane_index() < 16)
    __syncwarp();
  else
    __syncwarp();  // here: syncwarp_in_a_branch
}

SVMAX_KERNEL(kThreads, 1)
syncwarp_without_half_a_warp(Global<f64> out) {
  if (lane_index() < 16) __syncwarp();  // here: syncwarp_without_half_a_warp
  out[threadIdx.x] = f64(1);
}

// ---- races on shared memory

SVMAX_KERNEL(kThreads, 1)
race_of_two_writes() {
  const Shared<f64> shared = SharedMemory().take<f64>(1);
  if (lane_index() == 0) shared[0] = f64(1);  // here: race_of_two_writes
}

SVMAX_KERNEL(kThreads, 1)
race_of_read_and_write(Global<f64> out) {
  const Shared<f64> shared = SharedMemory().take<f64>(kThreads);
  const int thread = threadIdx.x;
  shared[thread] = f64(thread);
  out[thread] = shared[thread / 2];  // here: race_of_read_and_write
}

// Thread 0 reads before thread 40 writes, here; on a GPU perhaps after.
SVMAX_KERNEL(kThreads, 1)
race_of_write_and_read(Global<f64> out) {
  const Shared<f64> shared = SharedMemory().take<f64>(1);
  if (threadIdx.x == 0) shared[0] = f64(1);
  __syncthreads();
  if (threadIdx.x == 0) out[0] = shared[0];
  if (threadIdx.x == 40) shared[0] = f64(2);  // here: race_of_write_and_read
}

// Of many readers, those of the writer's own warp are in order with it, those of the other warp are not.
SVMAX_KERNEL(kThreads, 1)
race_of_write_and_many_reads(Global<f64> out) {
  const Shared<f32> shared = SharedMemory().take<f32>(1);
  if (threadIdx.x == 0) shared[0] = f32(1);
  __syncthreads();
  out[threadIdx.x] = f64(f32(shared[0]));
  __syncwarp();
  if (threadIdx.x == 63) shared[0] = f32(2);  // here: race_of_write_and_many_reads
}

SVMAX_KERNEL(kThreads, 1)
race_after_one_barrier_too_few(Global<f64> out) {
  const Shared<f64> shared = SharedMemory().take<f64>(kThreads);
  const int thread = threadIdx.x;
  for (int round = 0; round < 3; ++round) {
    shared[thread] = f64(round);  // here: race_after_one_barrier_too_few
    __syncthreads();
    out[thread] = shared[(thread + 32) % kThreads];
  }
}

SVMAX_KERNEL(kThreads, 1)
race_in_a_warp(Global<f64> out) {
  const Shared<f64> shared = SharedMemory().take<f64>(kThreads);
  const int thread = threadIdx.x;
  shared[thread] = f64(thread);
  const f64 next = shared[thread > 0 ? thread - 1 : 0];  // here: race_in_a_warp
  out[thread] = next;
}

// A shuffle is no barrier for memory.
SVMAX_KERNEL(kThreads, 1)
race_past_a_shuffle(Global<f64> out) {
  const Shared<f64> shared = SharedMemory().take<f64>(kThreads);
  const int thread = threadIdx.x;
  shared[thread] = f64(thread);
  const int partner = __shfl_xor_sync(kAllLanes, thread, 1);
  out[thread] = shared[partner];  // here: race_past_a_shuffle
}

SVMAX_KERNEL(kThreads, 1)
race_past_half_a_syncwarp(Global<f64> out) {
  const Shared<f64> shared = SharedMemory().take<f64>(kThreads);
  const int thread = threadIdx.x;
  shared[thread] = f64(0);
  __syncthreads();
  shared[thread] = f64(thread);
  __syncwarp(lane_index() < 16 ? 0x0000ffffu : 0xffff0000u);
  out[thread] = shared[thread ^ 16];  // here: race_past_half_a_syncwarp
}

// ---- shared memory

SVMAX_KERNEL(kThreads, 1)
shared_out_of_range() {
  SharedMemory memory;
  const Shared<f64> shared = memory.take<f64>(4);
  memory.take<f64>(4);                       // the launch has room: it is the other piece that is hit
  if (threadIdx.x == 0) shared[4] = f64(1);  // here: shared_out_of_range
}

SVMAX_KERNEL(kThreads, 1)
shared_before_the_piece() {
  SharedMemory memory;
  memory.take<f64>(4);
  const Shared<const f32> shared = memory.take<f32>(4);
  if (threadIdx.x == 0) static_cast<void>(f32((shared + 3)[-4]));  // here: shared_before_the_piece
}

SVMAX_KERNEL(kThreads, 1)
shared_beyond_the_launch() {
  const Shared<f64> shared = SharedMemory().take<f64>(1 << 10);
  if (threadIdx.x == 0) shared[1023] = f64(1);  // here: shared_beyond_the_launch
}

SVMAX_KERNEL(kThreads, 1)
shared_never_written(Global<f64> out) {
  const Shared<f64> shared = SharedMemory().take<f64>(2);
  if (threadIdx.x == 0) shared[0] = f64(1);
  __syncthreads();
  if (threadIdx.x == 0) out[0] = shared[1];  // here: shared_never_written
}

SVMAX_KERNEL(kThreads, 1)
shared_written_by_another_block(Global<f64> out) {
  const Shared<f64> shared = SharedMemory().take<f64>(1);
  if (threadIdx.x > 0) return;
  if (blockIdx.x == 0) shared[0] = f64(1);
  out[0] = shared[0];  // here: shared_written_by_another_block
}

SVMAX_KERNEL(kThreads, 1)
misaligned_shared_load2() {
  const Shared<f64> shared = SharedMemory().take<f64>(4);
  if (threadIdx.x != 0) return;
  for (int i = 0; i < 4; ++i) shared[i] = f64(i);
  load2(shared + 2);
  load2(shared + 1);  // here: misaligned_shared_load2
}

// ---- global memory

SVMAX_KERNEL(kThreads, 1)
global_out_of_range(Global<f64> out) {
  out[threadIdx.x + 1] = f64(1);  // here: global_out_of_range
}

SVMAX_KERNEL(kThreads, 1)
global_before_the_tensor(Global<const f64> in, Global<f64> out) {
  out[threadIdx.x] = in[int(threadIdx.x) - 3];  // here: global_before_the_tensor
}

SVMAX_KERNEL(kThreads, 1)
global_null(Global<const f64> in, Global<f64> out) {
  if (in != nullptr || out == nullptr) return;
  out[0] = in[0];  // here: global_null
}

SVMAX_KERNEL(kThreads, 1)
global_never_written(Global<const f64> in, Global<f64> out) {
  out[threadIdx.x] = in[threadIdx.x];  // here: global_never_written
}

SVMAX_KERNEL(kThreads, 1)
misaligned_global_load2(Global<const f64> in, Global<f64> out) {
  store2(out, load2(in));
  store2(out, load2(in + 1));  // here: misaligned_global_load2
}

SVMAX_KERNEL(kThreads, 1)
misaligned_global_store2(Global<f64> out) {
  store2(out + 3, {1, 2});  // here: misaligned_global_store2
}

SVMAX_KERNEL(kThreads, 1) nothing() {}

alignas(16) double memory[kThreads + 2];
const Global<f64> out(reinterpret_cast<f64*>(memory + 2), memory + 2, memory + 2 + kThreads);

template <typename... Parameters>
void launch(const char* name, void (*kernel)(Parameters...), Parameters... arguments) {
  svmax_host::launch(name, kernel, {2}, kThreads, 1 << 10, arguments...);
}

#define EXAMPLE(kernel, ...) {#kernel, [] { launch(#kernel, kernel __VA_OPT__(, ) __VA_ARGS__); }}

const svmax_host::Example kExamples[] = {
    EXAMPLE(divergent_barrier),
    EXAMPLE(barrier_after_exit),
    EXAMPLE(exit_while_others_wait),
    EXAMPLE(barrier_while_others_shuffle, out),
    EXAMPLE(shuffle_with_exited_lane),
    EXAMPLE(exit_while_others_shuffle),
    EXAMPLE(shuffle_with_lane_at_barrier),
    EXAMPLE(shuffle_from_lane_outside_mask),
    EXAMPLE(shuffle_by_lane_outside_mask),
    EXAMPLE(shuffle_with_different_masks),
    EXAMPLE(shuffle_on_two_lines),
    EXAMPLE(syncwarp_in_a_branch),
    EXAMPLE(syncwarp_without_half_a_warp, out),
    EXAMPLE(race_of_two_writes),
    EXAMPLE(race_of_read_and_write, out),
    EXAMPLE(race_of_write_and_read, out),
    EXAMPLE(race_of_write_and_many_reads, out),
    EXAMPLE(race_after_one_barrier_too_few, out),
    EXAMPLE(race_in_a_warp, out),
    EXAMPLE(race_past_a_shuffle, out),
    EXAMPLE(race_past_half_a_syncwarp, out),
    EXAMPLE(shared_out_of_range),
    EXAMPLE(shared_before_the_piece),
    EXAMPLE(shared_beyond_the_launch),
    EXAMPLE(shared_never_written, out),
    EXAMPLE(shared_written_by_another_block, out),
    EXAMPLE(misaligned_shared_load2),
    EXAMPLE(global_out_of_range, out),
    EXAMPLE(global_before_the_tensor, Global<const f64>(out), out),
    EXAMPLE(global_null, Global<const f64>(nullptr), out),
    {"global_never_written",
     [] {
       static double scratch[kThreads] = {1, 2, 3};  // the rest is new
       svmax_host::never_written(scratch + 3, kThreads - 3);
       const Global<const f64> in(reinterpret_cast<const f64*>(scratch), scratch, scratch + kThreads);
       launch("global_never_written", global_never_written, in, out);
     }},
    EXAMPLE(misaligned_global_load2, Global<const f64>(out), out),
    EXAMPLE(misaligned_global_store2, out),
    {"block_of_no_whole_warps", [] { svmax_host::launch("nothing", nothing, {1}, 48, 0); }},
    {"block_of_too_many_threads", [] { svmax_host::launch("nothing", nothing, {1}, 1056, 0); }},
    {"empty_grid", [] { svmax_host::launch("nothing", nothing, {1, 0, 1}, 32, 0); }},
    {"grid_too_high", [] { svmax_host::launch("nothing", nothing, {1, 65536, 1}, 32, 0); }},
    {"too_much_shared_memory", [] { svmax_host::launch("nothing", nothing, {1}, 32, (227 << 10) + 1); }},
};

}  // namespace
}  // namespace svmax::cuda

const std::span<const svmax_host::Example> svmax_host::kBroken = svmax::cuda::kExamples;
