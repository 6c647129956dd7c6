// The dispatcher's namespace for our ops. The host build of the CUDA kernels (tests/host/) registers the same schemas
// under a name of its own, so that both can be loaded side by side.
#pragma once
#include <torch/csrc/stable/library.h>

#ifndef SVMAX_NAMESPACE
#define SVMAX_NAMESPACE svmax
#endif

// torch's macros make a string of their argument; one more level lets the macro above be replaced first.
#define SVMAX_LIBRARY(name, m) STABLE_TORCH_LIBRARY(name, m)
#define SVMAX_LIBRARY_IMPL(name, key, m) STABLE_TORCH_LIBRARY_IMPL(name, key, m)
