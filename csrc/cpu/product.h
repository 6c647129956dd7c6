// Matrix products in registers: C (+)= A B, with A read element by element (any strides, so also transposed) and B by
// rows.
#pragma once
#include <type_traits>

#include "simd.h"

namespace svmax::SVMAX_ISA {

// Multiply-adds worth handing to another thread: 40 us of them. Waking one costs 10 us, and half of what it then saves.
constexpr int64_t kParallelProducts = 2000000;
// Products added up in registers before C is touched. Short, since the rounding of a sum grows with its length, and
// shows at rank one (N at 512x512: 1e-7; 3e-7 with 256); 16 columns of B stay in L1 meanwhile.
constexpr int64_t kDepth = 64;

// c[R, V vectors] (+)= a[R, k] b[k, V vectors]
template <typename T, int R, int V>
SVMAX_INLINE void product_tile(int64_t k, const T* a, int64_t a_row, int64_t a_column, const T* b, int64_t b_row, T* c,
                               int64_t c_row, bool accumulate) {
  constexpr int64_t L = kLanes<T>;
  Vector<T> sum[R][V];
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < V; ++j) sum[i][j] = splat(T(0));
  for (int64_t l = 0; l < k; ++l) {
    Vector<T> row[V];
    for (int j = 0; j < V; ++j) row[j] = load(b + l * b_row + j * L);
    for (int i = 0; i < R; ++i) {
      const T factor = a[i * a_row + l * a_column];
      for (int j = 0; j < V; ++j) sum[i][j] += factor * row[j];
    }
  }
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < V; ++j) {
      T* out = c + i * c_row + j * L;
      store<T>(out, accumulate ? load(out) + sum[i][j] : sum[i][j]);
    }
}

template <typename T, int V>
inline void product_rows(int64_t m, int64_t k, const T* a, int64_t a_row, int64_t a_column, const T* b, int64_t b_row,
                         T* c, int64_t c_row, bool accumulate) {
  int64_t i = 0;
  const auto tiles_of = [&]<int R>(std::integral_constant<int, R>) {
    for (; i + R <= m; i += R)
      product_tile<T, R, V>(k, a + i * a_row, a_row, a_column, b, b_row, c + i * c_row, c_row, accumulate);
  };
  if (V == 1) tiles_of(std::integral_constant<int, 2 * kTileRows>{});  // half the columns: room for twice the rows
  tiles_of(std::integral_constant<int, kTileRows>{});
  tiles_of(std::integral_constant<int, 2>{});
  tiles_of(std::integral_constant<int, 1>{});
}

// c[m, n] (+)= a[m, k] b[k, n]; n is rounded up to whole vectors, which b and c must have room for.
template <typename T>
inline void product(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row, int64_t a_column, const T* b,
                    int64_t b_row, T* c, int64_t c_row, bool accumulate) {
  constexpr int64_t L = kLanes<T>;
  if (k == 0 && !accumulate)
    for (int64_t i = 0; i < m; ++i) std::memset(c + i * c_row, 0, size_t(round_up(n, L)) * sizeof(T));
  for (int64_t l = 0; l < k; l += kDepth, accumulate = true) {
    const int64_t depth = smaller(kDepth, k - l);
    const T* a_l = a + l * a_column;
    const T* b_l = b + l * b_row;
    for (int64_t j = 0; j < n; j += 2 * L) {
      if (j + L < n)
        product_rows<T, 2>(m, depth, a_l, a_row, a_column, b_l + j, b_row, c + j, c_row, accumulate);
      else
        product_rows<T, 1>(m, depth, a_l, a_row, a_column, b_l + j, b_row, c + j, c_row, accumulate);
    }
  }
}

}  // namespace svmax::SVMAX_ISA
