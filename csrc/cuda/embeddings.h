// E as a matrix, and the objectives by torch's own operations, for what no block holds. m: matrices of the batch.
#pragma once
#include <cmath>
#include <limits>
#include <optional>

#include "stages.h"
#include "torch_calls.h"

namespace svmax::cuda {

struct Embeddings {
  Tensor normalized;  // [m, b, d] float64: the rows, divided by their norms if that was asked for
  Tensor e;           // the same, minus the mean row if that was asked for
  Tensor row_norms;   // [m, b, 1], or [m, 0, 1] when not normalised
};

// row_norms: what the forward kept, or nothing.
inline Embeddings embeddings(const Tensor& x_, bool normalize, bool center,
                             const std::optional<Tensor>& row_norms = std::nullopt) {
  const Tensor x = walkable(x_, 2);
  const Matrices in("embeddings", x, normalize, center);
  const Device device(x);
  const int64_t m = in.batch.count, each = in.b * in.d;
  const Tensor norms = row_norms ? *row_norms : scratch({m, in.norms()}, x);
  const Tensor normalized = scratch({m, in.b, in.d}, x), e = center ? scratch({m, in.b, in.d}, x) : normalized;
  for_each_group(m, 1, [&](int64_t first, int64_t count) {
    std::optional<Tensor> mean;
    if (center) mean = launch_mean(device, in, x, row_norms ? scratch({m, in.norms()}, x) : norms, first, count);
    const EmbedOptions options{global<f64>(norms) + first * in.norms(), center || row_norms.has_value(),
                               mean ? global<const f64>(*mean) : Global<const f64>(nullptr)};
    with_scalar(in.first.scalar, [&]<typename scalar_t>() {
      SVMAX_LAUNCH(device, (embed_kernel<scalar_t>), Grid{(in.b + kEmbedWarps - 1) / kEmbedWarps, count},
                   kEmbedWarps * kWarp, 0, rows_of<scalar_t>(in, x, first), options,
                   global<f64>(normalized) + first * each, global<f64>(e) + first * each);
    });
  });
  return {normalized, e, aten::reshape(norms, aten::Sizes{m, in.norms(), 1})};
}

inline Tensor less_mean_row(const Tensor& t) {
  return aten::sub(t, aten::mul(aten::sum_over(t, {-2}), 1.0 / double(t.size(-2))));
}

// t as a new contiguous tensor of that shape and type: what an op returns.
inline Tensor returned(const Tensor& t, const aten::Sizes& sizes, int32_t dtype) {
  Tensor result = empty(sizes, dtype, t);
  torch::stable::copy_(result, aten::reshape(t, sizes));
  return result;
}

inline Tensor returned_row_norms(const Embeddings& rows, const Matrices& in) {
  return returned(rows.row_norms, in.batch.with({in.norms()}), aoti_torch_dtype_float64());
}

// W [.., n, n], the mean of its rows taken off where E is centred and wide: along the null vector of ones, which EE'
// then has, W is 1 / sqrt(shift), and would multiply what rounding has left of the sum of E's rows
// (csrc/cpu/backward.h).
inline Tensor without_null_direction(const Tensor& weight, const Matrices& in) {
  return in.tall() || !in.first.center ? weight : less_mean_row(weight);
}

// Objective::value and Objective::slope for tensors of nuclear norms.
inline Tensor value_of(const Objective& f, const Tensor& norm) {
  if (f.kind == Objective::Kind::Linear) return aten::mul(norm, f.scale);
  return aten::exp(aten::mul(aten::add(aten::number(f.upper), norm, -1 / f.d), 1 / f.range));
}
inline Tensor times_slope(const Objective& f, const Tensor& norm, const Tensor& factor) {
  if (f.kind == Objective::Kind::Linear) return aten::mul(factor, f.scale);
  return aten::mul(factor, aten::mul(value_of(f, norm), -1 / (f.range * f.d)));
}

}  // namespace svmax::cuda
