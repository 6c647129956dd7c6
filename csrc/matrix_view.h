// One matrix of the batch as every kernel gets it: a pointer and sizes, no tensor.
#pragma once
#include <cstdint>

#include "config.h"

namespace svmax {

enum class Scalar { Half, BFloat16, Float, Double };

// x [b, d], strides in elements, and what is done to it before the Gram matrix.
struct MatrixView {
  const void* x;
  Scalar scalar;
  int64_t b, d, row_stride, column_stride;
  bool normalize, center;
};

// Whether the smaller Gram matrix is E'E [d, d], not EE' [b, b]. The rows of a centred E add up to zero, so EE' has the
// null vector of ones, and backward.h counts on knowing it: for b = d, centred, EE' is taken.
SVMAX_EVERYWHERE bool is_tall(int64_t b, int64_t d, bool center) { return (center ? b - 1 : b) >= d; }

}  // namespace svmax
