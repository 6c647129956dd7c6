# The instruction sets that the CPU kernels are compiled for, and their flags: for the library (CMakeLists.txt) and for the
# tests of its steps (tests/steps/). Sets isas, flags_<isa> and kernel_flags, which all of them share.

# Products and sums may fuse. Never -ffast-math: a NaN must stay one.
set(kernel_flags -ffp-contract=fast -fno-math-errno -fno-trapping-math)

set(flags_baseline "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  set(isas baseline avx2 avx512)
  set(flags_avx2 -mavx2 -mfma -mf16c)
  set(flags_avx512 ${flags_avx2} -mavx512f -mavx512dq -mavx512vl -mavx512bw -mprefer-vector-width=512)
  add_compile_definitions(SVMAX_X86=1)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(isas neon) # every such processor has it
else()
  set(isas baseline)
endif()
