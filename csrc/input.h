// One matrix of the batch as every kernel gets it: a pointer and sizes, no tensor.
#pragma once
#include <cstdint>

namespace svmax {

enum class Scalar { Half, BFloat16, Float, Double };

// x [b, d], strides in elements, and what is done to it before the Gram matrix.
struct Input {
  const void* x;
  Scalar scalar;
  int64_t b, d, row_stride, column_stride;
  bool normalize, center;
};

}  // namespace svmax
