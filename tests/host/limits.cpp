// The limits of the launches that tests go beyond, for Python.
#include "cuda/launch_plans.h"

extern "C" [[gnu::visibility("default")]] int svmax_host_most_matrices() { return int(svmax::cuda::kMostMatrices); }
