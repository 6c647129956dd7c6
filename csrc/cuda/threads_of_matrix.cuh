// The threads that work on one matrix: one warp for small ones, several of them in a block, else a whole block.
#pragma once
#include "device.cuh"

namespace svmax::cuda {

// How a matrix of up to N rows is laid out over its team. Register matrices: rows over warps, columns over lanes.
template <int N>
struct Layout {
  static constexpr int kWarps = N <= 32 ? 1 : N <= 64 ? 4 : N <= 128 ? 8 : 16;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kTeams = kWarps == 1 ? 4 : 1;           // in a block
  static constexpr int kRows = N / kWarps;                     // of a warp: warp, warp + kWarps, ...
  static constexpr int kColumns = N <= kWarp ? 1 : N / kWarp;  // of a lane: lane, lane + 32, ...
  static constexpr int kWide = kColumns * kWarp;               // columns with the padding of N = 16
  static constexpr bool kInRegisters = N <= 128;
};

template <int N>
struct Team {
  static constexpr int kWarps = Layout<N>::kWarps, kThreads = Layout<N>::kThreads;

  SVMAX_DEVICE static int index() { return Layout<N>::kTeams > 1 ? warp_index() : 0; }  // of the team in its block
  SVMAX_DEVICE static int thread() { return int(threadIdx.x) % kThreads; }
  SVMAX_DEVICE static int warp() { return thread() / kWarp; }
  SVMAX_DEVICE static void sync() {
    if constexpr (kWarps == 1)
      __syncwarp();
    else
      __syncthreads();
  }
};

}  // namespace svmax::cuda
