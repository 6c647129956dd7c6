# The instruction sets that the CPU kernels are compiled for, and their flags: for the library (CMakeLists.txt) and for the
# tests of its steps (tests/steps/). Sets isas, flags_<isa>, kernel_flags, which all of them share, and math_flags, which
# the linker needs too.

# A NaN must stay one and a sum keep its order, whatever CXXFLAGS ask for: -ffast-math and its parts are taken back. In a
# linker's command they would have every process that loads the library take subnormal numbers for zero.
set(math_flags -fno-fast-math -fno-finite-math-only -fno-unsafe-math-optimizations -fno-associative-math
  -fno-reciprocal-math -fsigned-zeros)
# Products and sums may fuse.
set(kernel_flags ${math_flags} -ffp-contract=fast -fno-math-errno -fno-trapping-math)

set(flags_baseline "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  list(APPEND kernel_flags -march=x86-64 -mtune=generic) # nor the building machine's instructions (-march=native)
  set(isas baseline avx2 avx512)
  set(flags_avx2 -mavx2 -mfma -mf16c)
  set(flags_avx512 ${flags_avx2} -mavx512f -mavx512dq -mavx512vl -mavx512bw -mprefer-vector-width=512)
  add_compile_definitions(SVMAX_X86=1)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(isas neon) # every such processor has it
else()
  set(isas baseline)
endif()
