// Wavefronts of shared memory: 32 banks of 4 bytes, one word of each at a time; lanes that read the same word share it.
#include <algorithm>
#include <bit>
#include <map>
#include <tuple>

#include "shared_state.h"

namespace svmax_host {
namespace {

using Access = BankCounter::Access;

constexpr int kBanks = 32;

// One instruction: what each lane accesses, null where it does not take part.
struct Instruction {
  const Access* lane[kWarpSize] = {};

  // The wavefronts of lanes begin to end, and how many different words they are.
  struct Load {
    int wavefronts, words;
  };
  Load load(int begin, int end) const {
    int words[kWarpSize * 4], count = 0;
    for (int i = begin; i < end; ++i)
      for (int w = 0; lane[i] != nullptr && w < lane[i]->bytes / kWordBytes; ++w)
        words[count++] = lane[i]->byte / kWordBytes + w;
    std::sort(words, words + count);
    count = int(std::unique(words, words + count) - words);
    int in_bank[kBanks] = {}, most = 0;
    for (int i = 0; i < count; ++i) most = std::max(most, ++in_bank[words[i] % kBanks]);
    return {most, count};
  }

  void count_wavefronts() const {
    const Access* first = *std::find_if(lane, lane + kWarpSize, [](const Access* a) { return a != nullptr; });
    const Load all = load(0, kWarpSize);
    int wavefronts = all.wavefronts;
    // Wide accesses are taken by half or quarter warps, unless one wavefront has everything.
    const int parts = first->bytes / kWordBytes;
    if (wavefronts > 1 && parts > 1) {
      wavefronts = 0;
      for (int p = 0; p < parts; ++p) wavefronts += load(p * kWarpSize / parts, (p + 1) * kWarpSize / parts).wavefronts;
    }
    count(&Counters::shared_wavefronts, wavefronts);
    count(&Counters::bank_conflicts, wavefronts - (all.words + kBanks - 1) / kBanks);
  }
};

const void* site(const Access& access) { return std::bit_cast<const void*>(access.where); }

}  // namespace

void BankCounter::flush(int warp, unsigned mask) {
  std::vector<Access>* const logs = lanes_ + warp * kWarpSize;
  size_t longest = 0, at = 0;
  for (int i = 0; i < kWarpSize; ++i)
    if (mask >> i & 1) longest = std::max(longest, logs[i].size());
  if (longest == 0) return;

  // Lanes mostly go through the same lines in step.
  for (bool in_step = true; at < longest && in_step;) {
    Instruction instruction;
    const Access* first = nullptr;
    for (int i = 0; i < kWarpSize && in_step; ++i) {
      if (!(mask >> i & 1) || logs[i].size() <= at) continue;
      const Access& access = logs[i][at];
      if (first == nullptr) first = &access;
      in_step = site(access) == site(*first) && access.writes == first->writes;
      instruction.lane[i] = &access;
    }
    if (!in_step) break;
    instruction.count_wavefronts();
    ++at;
  }
  // Where they do not: what a lane does at a line for the k-th time goes with what others do there for the k-th time.
  if (at < longest) {
    std::map<std::tuple<const void*, bool, int>, Instruction> instructions;
    for (int i = 0; i < kWarpSize; ++i) {
      if (!(mask >> i & 1)) continue;
      std::map<std::pair<const void*, bool>, int> times;
      for (size_t k = at; k < logs[i].size(); ++k) {
        const Access& access = logs[i][k];
        const int time = times[{site(access), access.writes}]++;
        instructions[{site(access), access.writes, time}].lane[i] = &access;
      }
    }
    for (const auto& [key, instruction] : instructions) instruction.count_wavefronts();
  }
  for (int i = 0; i < kWarpSize; ++i)
    if (mask >> i & 1) logs[i].clear();
}

}  // namespace svmax_host
