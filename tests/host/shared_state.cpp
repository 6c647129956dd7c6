#include "shared_state.h"

#include <algorithm>

namespace svmax_host {

void WarpClock::sync(unsigned mask) {
  ++now;
  if (mask == ~0u) {
    all_ = now;
    partly_ = false;
    return;
  }
  if (!partly_) std::fill_n(&known_[0][0], kWarpSize * kWarpSize, 0u);
  partly_ = true;
  uint32_t joined[kWarpSize] = {};
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if (!(mask >> lane & 1)) continue;
    for (int other = 0; other < kWarpSize; ++other) joined[other] = std::max(joined[other], known_[lane][other]);
    joined[lane] = now;
  }
  for (int lane = 0; lane < kWarpSize; ++lane)
    if (mask >> lane & 1) std::copy_n(joined, kWarpSize, known_[lane]);
}

void SharedState::begin_block(int warps) {
  if (epoch_ > 1u << 31) {
    std::fill(words_.begin(), words_.end(), Word{});
    epoch_ = 1;
  }
  first_epoch_ = ++epoch_;
  for (int warp = 0; warp < warps; ++warp) clocks_[warp].reset();
}

void SharedState::never_written(Where where) const { violation("read of shared memory that was never written", where); }

void SharedState::race(const char* now, const char* then, const Word::Access& before, Where where) const {
  const bool one_warp = before.thread / kWarpSize == threadIdx.x / kWarpSize;
  violation(std::string("race on shared memory: ") + now + " of what thread " + std::to_string(before.thread) +
                " has " + then + " at " + text(before.where) + ", without a " +
                (one_warp ? "__syncwarp" : "__syncthreads") + " in between",
            where);
}

}  // namespace svmax_host
