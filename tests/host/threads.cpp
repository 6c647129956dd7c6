// Runs the threads of a block as OS threads, so that ThreadSanitizer sees every race on shared and global memory that
// is not ordered by a barrier. What fibres.cpp checks of barriers and shuffles is taken for granted here.
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cstdio>
#include <thread>
#include <vector>

#include "runtime.h"

namespace svmax_host {
namespace {

// Not by a mutex: whoever wakes up late would take it after those who are ahead, and so be ordered after what they did
// since.
class Barrier {
 public:
  void reset(int threads) { threads_ = threads; }
  void wait() {
    const unsigned round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
    } else {
      while (round_.load(std::memory_order_acquire) == round) sched_yield();
    }
  }

 private:
  int threads_ = 0;
  std::atomic<int> arrived_ = 0;
  std::atomic<unsigned> round_ = 0;
};

// Where the lanes of one mask meet. kOrder: whether what they did before is then ordered. For a shuffle it is not, on a
// GPU; so relaxed atomics, in which ThreadSanitizer sees no order (and which the processors that it runs on keep).
template <std::memory_order kBoth, std::memory_order kStore, std::memory_order kLoad>
class Meeting {
 public:
  std::atomic<unsigned> mask = 0;

  uint64_t meet(int lane, uint64_t value, int source) {
    const unsigned round = round_.load(kLoad);
    values_[round % 2][lane].store(value, std::memory_order_relaxed);
    if (arrived_.fetch_add(1, kBoth) + 1 == std::popcount(mask.load(std::memory_order_relaxed))) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, kStore);
    } else {
      while (round_.load(kLoad) == round) sched_yield();
    }
    return values_[round % 2][source].load(std::memory_order_relaxed);
  }

 private:
  std::atomic<int> arrived_ = 0;
  std::atomic<unsigned> round_ = 0;
  std::atomic<uint64_t> values_[2][kWarpSize] = {};
};
using Sync = Meeting<std::memory_order_acq_rel, std::memory_order_release, std::memory_order_acquire>;
using Shuffle = Meeting<std::memory_order_relaxed, std::memory_order_relaxed, std::memory_order_relaxed>;

template <typename M>
M& of_mask(M (&meetings)[8], unsigned mask) {
  for (M& meeting : meetings) {
    unsigned taken = 0;
    if (meeting.mask.compare_exchange_strong(taken, mask, std::memory_order_relaxed) || taken == mask) return meeting;
  }
  violation("more than 8 masks in one warp", Where::current());
}

Barrier block_barrier;
struct Warp {
  Sync syncs[8];
  Shuffle shuffles[8];
} warps[kMostThreads / kWarpSize];
const char* running;

int lane() { return threadIdx.x % kWarpSize; }
Warp& warp() { return warps[threadIdx.x / kWarpSize]; }

}  // namespace

void violation(const std::string& what, Where where) {
  std::fprintf(stderr, "%s\n", message(running, threadIdx.x, what, where).c_str());
  _exit(1);
}

void barrier(Where) { block_barrier.wait(); }

void sync_warp(unsigned mask, Where) { of_mask(warp().syncs, mask).meet(lane(), 0, 0); }

uint64_t shuffle(unsigned mask, Type, uint64_t value, int source, Where) {
  return of_mask(warp().shuffles, mask).meet(lane(), value, source & (kWarpSize - 1));
}

void run(const char* kernel, Dim3 grid, int threads, int bytes, void (*thread)(const void*), const void* data) {
  check_launch(kernel, grid, threads, bytes);
  running = kernel;
  gridDim = grid;
  blockDim.x = threads;
  shared_bytes = bytes;
  block_barrier.reset(threads);
  std::vector<std::thread> all;
  blockIdx = {0, 0, 0};
  for (int i = 0; i < threads; ++i) {
    all.emplace_back([=] {
      threadIdx.x = i;
      const int64_t blocks = int64_t(grid.x) * grid.y * grid.z;
      for (int64_t b = 0; b < blocks; ++b) {
        if (i == 0) blockIdx = {int(b % grid.x), int(b / grid.x % grid.y), int(b / grid.x / grid.y)};
        block_barrier.wait();
        thread(data);
        block_barrier.wait();
      }
    });
  }
  for (std::thread& t : all) t.join();
}

}  // namespace svmax_host
