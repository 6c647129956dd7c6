// The one list of what the native library offers; each device's file registers the kernels.
// In the order the data travels; n = min(b, d). Shapes stand here, a schema has none.
#include "namespace.h"

SVMAX_LIBRARY(SVMAX_NAMESPACE, m) {
  // The three stages.
  // x [..., b, d] -> gram [..., n, n] float64, row_norms [..., b] float64 ([..., 0] when not normalised)
  m.def("gram(Tensor x, *, bool normalize, bool center) -> (Tensor gram, Tensor row_norms)");
  // gram [..., n, n] float64 -> nuclear_norm [...] float64, inverse_sqrt [..., n, n] float64, in_float32 [..., 1] bool;
  // the last two are [..., 0, 0] and [..., 0] when not needed.
  // in_float32 is the precision of the matrix W that stands before it, one for each: true where the entries of W are
  // float32 numbers and its products may be taken in float32.
  m.def(
      "spectral(Tensor gram, *, bool need_inverse_sqrt)"
      " -> (Tensor nuclear_norm, Tensor inverse_sqrt, Tensor in_float32)");
  // grad [...], weight = slope * inverse_sqrt [..., n, n], in_float32 [..., 1] -> dx [..., b, d] in x's dtype,
  // contiguous. `objective` names the function of the nuclear norm whose slope is in `weight`; only the derivative of
  // this op needs it.
  m.def(
      "backward(Tensor grad, Tensor x, Tensor weight, Tensor in_float32, Tensor row_norms, *, str objective,"
      " bool normalize, bool center) -> Tensor");

  // gram and spectral in one call: what the public functions use.
  // objective: nuclear_norm | mean_singular_value | svmax_loss | svmax_loss_unbounded
  // -> value [...] float32 (float64 for float64 x), weight = slope * inverse_sqrt [..., n, n], in_float32 [..., 1],
  // row_norms [..., b]
  m.def(
      "objective(Tensor x, *, str objective, bool normalize, bool center, bool need_gradient=False)"
      " -> (Tensor value, Tensor weight, Tensor in_float32, Tensor row_norms)");

  // -> values [..., n] descending, float32 (float64 for float64 x); gram, row_norms: kept for the backward
  m.def(
      "singular_values(Tensor x, *, bool normalize, bool center, bool need_gradient=False)"
      " -> (Tensor values, Tensor gram, Tensor row_norms)");
  // grad [..., n] -> dx [..., b, d] in x's dtype. Its kernel is not here: svmax_ops registers the one of torch.linalg,
  // which serves every device.
  m.def(
      "singular_values_backward(Tensor grad, Tensor x, Tensor gram, Tensor row_norms, *, bool normalize, bool center)"
      " -> Tensor");
}
