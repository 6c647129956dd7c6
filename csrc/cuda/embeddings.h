// The embedding matrices E of a batch as tensors, for what no thread block takes. m: matrices of the batch.
#pragma once
#include <optional>

#include "aten.h"
#include "launch_plans.h"

namespace svmax::cuda {

struct Embeddings {
  Tensor normalized;  // [m, b, d] float64: the rows, divided by their norms if that was asked for
  Tensor e;           // the same, minus the mean row if that was asked for
  Tensor row_norms;   // [m, b, 1], or [m, 0, 1] when not normalised
};

// row_norms: what the forward kept, or nothing.
inline Embeddings pack_e(const Tensor& x_, bool normalize, bool center,
                         const std::optional<Tensor>& row_norms = std::nullopt) {
  const Tensor x = walkable(x_, 2);
  const Matrices in("pack_e", x, normalize, center);
  const Device device(x);
  const int64_t m = in.batch.count, each = in.b * in.d;
  const Tensor norms = row_norms ? *row_norms : scratch({m, in.norms()}, x);
  const Tensor normalized = scratch({m, in.b, in.d}, x), e = center ? scratch({m, in.b, in.d}, x) : normalized;
  for_each_group(m, 1, [&](int64_t first, int64_t count) {
    std::optional<Tensor> mean;
    if (center) mean = launch_mean(device, in, x, row_norms ? scratch({m, in.norms()}, x) : norms, first, count);
    const PackOptions options{global<f64>(norms) + first * in.norms(), center || row_norms.has_value(),
                              mean ? global<const f64>(*mean) : Global<const f64>(nullptr)};
    with_scalar(in.first.scalar, [&]<typename scalar_t>() {
      SVMAX_LAUNCH(device, (pack_e_kernel<scalar_t>), Grid{(in.b + kPackWarps - 1) / kPackWarps, count},
                   kPackWarps * kWarp, 0, rows_of<scalar_t>(in, x, first), options,
                   global<f64>(normalized) + first * each, global<f64>(e) + first * each);
    });
  });
  return {normalized, e, aten::reshape(norms, aten::Sizes{m, in.norms(), 1})};
}

}  // namespace svmax::cuda
