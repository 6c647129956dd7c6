// The library's word about itself, before it is loaded: svmax_ops/backends/cuda_library.py reads this sentence from the
// file. CUDA's major version must be torch's, or the dynamic linker mixes two CUDA runtimes in one process.
extern "C" [[gnu::visibility("default")]] const char svmax_cuda_built_for[] =
    "svmax_ops for CUDA " SVMAX_CUDA_VERSION ", architectures " SVMAX_CUDA_ARCHITECTURES ", PTX " SVMAX_CUDA_PTX;
