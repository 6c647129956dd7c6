// What the launches have cost.
#pragma once
#include <vector>

#include "runtime.h"

namespace svmax_host {

struct Launch {
  std::string kernel;
  Dim3 grid;
  int threads, shared_bytes;
  int64_t blocks = 0;
  Counters most{}, total{};  // of the block with most float64 operations, and of all

  void add(const Counters& block);
};
inline std::vector<Launch> launches;  // since the last reset, while `counting`
inline int64_t launched = 0;          // how many there have been, `counting` or not

}  // namespace svmax_host
