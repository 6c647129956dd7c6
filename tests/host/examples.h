// Small kernels that the emulator is tested with.
#pragma once
#include <span>

namespace svmax_host {

struct Example {
  const char* name;
  void (*run)();
};
extern const std::span<const Example> kBroken;   // each must be refused
extern const std::span<const Example> kCorrect;  // each must pass, and its counters are known

}  // namespace svmax_host
