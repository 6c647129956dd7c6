// The instruction sets the kernels were compiled for, and which of them runs.
#pragma once
#include <vector>

#include "kernels.h"

namespace svmax {

struct InstructionSet {
  const char* name;
  const Kernels* kernels;
  bool runs_here;
};

inline const std::vector<InstructionSet>& instruction_sets() {  // best first
  static const std::vector<InstructionSet> sets = {
#ifdef SVMAX_X86
      {"avx512", &avx512::kernels,
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma")},
      {"avx2", &avx2::kernels, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
#endif
#ifdef __aarch64__
      {"neon", &neon::kernels, true},
#else
      {"baseline", &baseline::kernels, true},
#endif
  };
  return sets;
}

inline const InstructionSet*& chosen() {
  static const InstructionSet* set = [] {
    const InstructionSet* best = instruction_sets().data();
    while (!best->runs_here) ++best;
    return best;
  }();
  return set;
}

inline const Kernels& kernels() { return *chosen()->kernels; }

inline const QuadratureTable& quadrature() {
  static const QuadratureTable table;
  return table;
}

}  // namespace svmax
