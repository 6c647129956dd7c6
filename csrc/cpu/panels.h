// The lower half of a symmetric matrix in panels of columns, each contiguous: G on its way from `gram` to `spectral`,
// and W on its way back. Rows of a large matrix lie a page apart; rows of a panel are neighbours.
#pragma once
#include "pool.h"
#include "product.h"

namespace svmax::SVMAX_ISA {

template <typename T>
constexpr int64_t kPanelColumns = 2 * kLanes<T>;  // two registers

// Panel q has the columns [q kPanelColumns, ..) and all rows, of which those from the diagonal block on are used. The
// diagonal blocks are whole, so that no loop has a ragged edge; columns past n are zero.
template <typename T>
struct Panels {
  static constexpr int64_t kColumns = kPanelColumns<T>;
  T* data;
  int64_t n, rows;  // rows: n rounded up to kColumns

  static int64_t size(int64_t n) { return round_up(n, kColumns) * round_up(n, kColumns); }
  Panels(T* memory, int64_t n) : data(memory), n(n), rows(round_up(n, kColumns)) {}

  // Row i of the panel that begins with column j.
  T* at(int64_t i, int64_t j) const { return data + j * rows + i * kColumns; }
  T& element(int64_t i, int64_t j) const { return at(i, j / kColumns * kColumns)[j % kColumns]; }

  void clear() const { std::memset(data, 0, size_t(size(n)) * sizeof(T)); }
  void clear_padding() const {
    if (n < rows) std::memset(at(0, rows - kColumns), 0, size_t(rows * kColumns) * sizeof(T));
  }

  void read_symmetric(const T* g) const {  // g [n, n], contiguous
    clear_padding();
    for (int64_t j = 0; j < n; j += kColumns)
      for (int64_t i = j; i < n; ++i)
        std::memcpy(at(i, j), g + i * n + j, size_t(smaller(kColumns, n - j)) * sizeof(T));
  }

  // out [n, n], contiguous = factor * the whole matrix, rounded to R. Mirrored a block at a time: whole cache lines.
  template <typename R = double>
  void write_symmetric(double factor, double* out) const {
    for (int64_t j = 0; j < n; j += kColumns)
      for (int64_t i0 = j; i0 < n; i0 += kColumns) {
        const int64_t i1 = smaller(i0 + kColumns, n), width = smaller(kColumns, n - j);
        for (int64_t i = i0; i < i1; ++i)
          for (int64_t c = 0; c < width; ++c) out[i * n + j + c] = double(R(at(i, j)[c] * factor));
        for (int64_t c = 0; c < width; ++c)
          for (int64_t i = larger(i0, j + c + 1); i < i1; ++i) out[(j + c) * n + i] = out[i * n + j + c];
      }
  }

  void scale(T factor) const {
    for (int64_t j = 0; j < n; j += kColumns)
      for (int64_t k = 0; k < (n - j) * kColumns; ++k) at(j, j)[k] *= factor;
  }
};

// The lower half of g = left'right, or that added to it. left, right: [depth, row], row >= n rounded up to
// kPanelColumns.
inline void add_products(const double* left, const double* right, int64_t row, int64_t depth, const Panels<double>& g,
                         bool accumulate, const Pool& pool) {
  constexpr int64_t kRows = 64, kColumns = kPanelColumns<double>;
  // Tiles of kRows rows of a panel, panel by panel, so that a panel of `right` stays in L1.
  const int64_t n = g.n;
  int64_t tiles = 0;
  for (int64_t j = 0; j < n; j += kColumns) tiles += (n - j + kRows - 1) / kRows;
  const int64_t grain = larger(1, kParallelProducts / (kRows * kColumns * depth));
  pool.each(tiles, grain, [=](int64_t begin, int64_t end) {
    int64_t tile = 0;
    for (int64_t j = 0; j < n; j += kColumns)
      for (int64_t i = j; i < n; i += kRows, ++tile)
        if (tile >= begin && tile < end)
          product<double>(smaller(kRows, n - i), smaller(kColumns, n - j), depth, left + i, 1, row, right + j, row,
                          g.at(i, j), kColumns, accumulate);
  });
}

}  // namespace svmax::SVMAX_ISA
